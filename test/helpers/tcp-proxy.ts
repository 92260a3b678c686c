/** A TCP proxy that can fall silent, reset what goes through it, and cut connections in the midst of a message. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/**
 * | forward | what is said goes through                                                               |
 * | silent  | nothing does, in either direction; connections stand and new ones are taken: packets are lost |
 * | reset   | every connection is reset, and new ones at once                                         |
 */
export type ProxyMode = "forward" | "silent" | "reset";

interface Pair {
  readonly client: Socket;
  readonly target: Socket;
}

export class TcpProxy {
  readonly #server: Server;
  readonly #targetPort: number;
  readonly #pairs = new Set<Pair>();
  #mode: ProxyMode = "forward";
  #cutAfterBytes: () => number = () => Infinity;
  #cuts = 0;

  /** Listens on a free port of 127.0.0.1, and connects to another one there. */
  static async start(targetPort: number): Promise<TcpProxy> {
    const proxy = new TcpProxy(targetPort);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  private constructor(targetPort: number) {
    this.#targetPort = targetPort;
    this.#server = createServer({ allowHalfOpen: true }, (client) => this.#accept(client));
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Connections that were cut after their share of bytes. */
  get cuts(): number {
    return this.#cuts;
  }

  set mode(mode: ProxyMode) {
    this.#mode = mode;
    for (const pair of [...this.#pairs]) {
      if (mode === "reset") this.#reset(pair);
      else {for (const socket of [pair.client, pair.target]) {
          mode === "silent" ? socket.pause() : socket.resume();
        }}
    }
  }

  /** New connections are reset after so many bytes of the target's; asked once for each. */
  cutEach(afterBytes: () => number): void {
    this.#cutAfterBytes = afterBytes;
  }

  async close(): Promise<void> {
    this.mode = "reset";
    this.#server.close();
    await once(this.#server, "close");
  }

  #accept(client: Socket): void {
    const target = connect({ port: this.#targetPort, host: "127.0.0.1", allowHalfOpen: true });
    const pair = { client, target };
    this.#pairs.add(pair);
    let left = this.#cutAfterBytes();
    let isCut = false;
    const forward = (from: Socket, to: Socket) => {
      from.on("data", (chunk: Buffer) => {
        // What follows a gap must not come through: no TCP does that.
        if (isCut) return;
        if (from === target && chunk.length >= left) {
          isCut = true;
          this.#cuts++;
          to.write(chunk.subarray(0, left), () => this.#reset(pair));
          return;
        }
        if (from === target) left -= chunk.length;
        if (!to.write(chunk)) {
          from.pause();
          to.once("drain", () => this.#mode === "silent" || from.resume());
        }
      });
      from.on("end", () => to.end());
      from.on("error", () => this.#reset(pair));
      from.on("close", () => this.#reset(pair));
    };
    forward(client, target);
    forward(target, client);
    if (this.#mode === "silent") {
      client.pause();
      target.pause();
    } else if (this.#mode === "reset") {
      this.#reset(pair);
    }
  }

  #reset(pair: Pair): void {
    if (!this.#pairs.delete(pair)) return;
    for (const socket of [pair.client, pair.target]) socket.resetAndDestroy();
  }
}
