/**
 * A small target in this process, on 127.0.0.1, that behaves unless a test's hook says otherwise: one disk
 * whose every block holds its own address. Hooks see each PDU of the initiator first.
 */
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { healthyDisk } from "./target-disk.ts";
import { answerLogin, type LoginText, type TargetChap } from "./target-login.ts";
import { Peer, type Request, RequestReader } from "./target-peer.ts";

export { blockBytes, diskBlocks, fillBlocks, fixedSense } from "./target-disk.ts";
export { bytesOf, type Field, isRead, lbaOf, type Request } from "./target-peer.ts";

export type TcpPeer = Peer<Socket>;

/** True: the hook dealt with the request. */
export type Hook = (request: Request, peer: TcpPeer) => boolean | void;

export class ScriptedTarget {
  readonly targetName = "iqn.2026-01.test:scripted";
  readonly peers: TcpPeer[] = [];
  /** Every request that arrived. */
  readonly requests: Request[] = [];
  /** Of connections from now on. */
  disk = healthyDisk;
  chap: TargetChap | undefined;
  hook: Hook = () => {};
  loginText: LoginText = (text) => text;
  onConnect: (peer: TcpPeer) => void = () => {};
  #server: Server | undefined;

  /** Listens, on a port of the system's choice if none is given. */
  async start(port = 0): Promise<void> {
    const server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => this.#serve(socket));
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  }

  get port(): number {
    return (this.#server!.address() as AddressInfo).port;
  }

  /** The options of a session with this target, quick to notice and to try again. */
  get options() {
    return {
      host: "127.0.0.1",
      port: this.port,
      targetName: this.targetName,
      initiatorName: "iqn.2026-01.test:me",
      isidQualifier: 7,
      backoffMinMs: 2,
      backoffMaxMs: 20,
    };
  }

  stop(): Promise<void> {
    for (const peer of this.peers) peer.socket.destroy();
    return new Promise((resolve) => this.#server!.close(() => resolve()));
  }

  #serve(socket: Socket): void {
    const peer = new Peer(socket, this.peers.length + 1, this.disk);
    this.peers.push(peer);
    const reader = new RequestReader();
    socket.on("error", () => {});
    socket.on("end", () => socket.end());
    socket.on("data", (chunk: Buffer) => {
      for (const request of reader.push(chunk, peer)) {
        if (socket.destroyed) return;
        this.#handle(request, peer);
      }
    });
    this.onConnect(peer);
  }

  #handle(request: Request, peer: TcpPeer): void {
    this.requests.push(request);
    const isImmediate = (request.header.getUint8(0) & 0x40) !== 0;
    const cmdSN = request.header.getUint32(24);
    peer.expCmdSN = isImmediate ? cmdSN : (cmdSN + 1) >>> 0;
    if (request.opcode === 0x03) peer.isidQualifier = request.header.getUint16(12);
    if (!this.hook(request, peer)) answerInOrder(request, peer, this.chap, this.loginText);
  }
}

/** What a healthy target does with a request. */
export function answerInOrder(request: Request, peer: Peer, chap?: TargetChap, change?: LoginText): void {
  if (request.opcode === 0x03) answerLogin(request, peer, chap, change);
  else if (request.opcode === 0x01) peer.answer(request);
  else if (request.opcode === 0x06) {
    peer.send(peer.pdu(0x26, 0x80, [[16, 4, request.tag], [24, 4, peer.takeStatSN()]]));
  } else if (request.opcode === 0x00 && request.tag !== 0xffffffff) {
    peer.send(
      peer.pdu(0x20, 0x80, [[16, 4, request.tag], [20, 4, 0xffffffff], [24, 4, peer.takeStatSN()]]),
    );
  }
}
