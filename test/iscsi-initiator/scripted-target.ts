/**
 * A small target in this process, on 127.0.0.1, that behaves unless a test's hook says otherwise: one disk
 * whose every block holds its own address. Hooks see each PDU of the initiator first.
 */
import { createServer, type Server, type Socket } from "node:net";
import type { AddressInfo } from "node:net";
import { crc32c } from "../../src/iscsi-initiator/crc32c.ts";

export const blockBytes = 512;
export const diskBlocks = 1 << 20;

/** What block `lba` of the disk holds. */
export function fillBlocks(into: Uint8Array, lba: number): void {
  const view = new DataView(into.buffer, into.byteOffset, into.length);
  for (let at = 0; at < into.length; at += 8) {
    view.setBigUint64(at, BigInt(lba + Math.floor(at / blockBytes)) * 4096n + BigInt(at % blockBytes));
  }
}

export interface Request {
  readonly opcode: number;
  readonly header: DataView;
  readonly tag: number;
  readonly cdb: Uint8Array;
  readonly data: Uint8Array;
  readonly expectedBytes: number;
}

/** A PDU of the target: a header of 48 bytes as [offset, width, value] fields, and data. */
export type Field = readonly [offset: number, bytes: 1 | 2 | 3 | 4, value: number];

/** One connection, from the target's side. */
export class Peer {
  readonly socket: Socket;
  /** Counts the connections of a target, from 1. */
  readonly index: number;
  statSN = 1000;
  expCmdSN = 0;
  /** Commands beyond the next that the initiator may send. */
  windowSize = 64;
  digests = { header: false, data: false };
  isLoggedIn = false;

  constructor(socket: Socket, index: number) {
    this.socket = socket;
    this.index = index;
  }

  pdu(opcode: number, flags: number, fields: readonly Field[], data: Uint8Array = new Uint8Array()): Buffer {
    const header = Buffer.alloc(48);
    header[0] = opcode;
    header[1] = flags;
    header.writeUIntBE(data.length, 5, 3);
    header.writeUInt32BE(this.expCmdSN >>> 0, 28);
    header.writeUInt32BE((this.expCmdSN + this.windowSize - 1) >>> 0, 32);
    for (const [offset, bytes, value] of fields) header.writeUIntBE(value, offset, bytes);
    const padded = Buffer.alloc((data.length + 3) & ~3);
    padded.set(data);
    const digest = (of: Uint8Array) => {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32LE(crc32c(of));
      return bytes;
    };
    return Buffer.concat([
      header,
      ...(this.digests.header ? [digest(header)] : []),
      padded,
      ...(this.digests.data && data.length > 0 ? [digest(padded)] : []),
    ]);
  }

  send(...pdus: Uint8Array[]): void {
    if (!this.socket.destroyed) this.socket.write(Buffer.concat(pdus));
  }

  takeStatSN(): number {
    const taken = this.statSN;
    this.statSN = (taken + 1) >>> 0;
    return taken;
  }

  dataIn(tag: number, offset: number, dataSN: number, data: Uint8Array): Buffer {
    return this.pdu(0x25, 0x80, [[16, 4, tag], [20, 4, 0xffffffff], [36, 4, dataSN], [40, 4, offset]], data);
  }

  response(
    tag: number,
    status = 0,
    sense: Uint8Array = new Uint8Array(),
    extra: readonly Field[] = [],
  ): Buffer {
    const segment = sense.length === 0 ? sense : Buffer.concat([Buffer.from([0, sense.length]), sense]);
    const fields: Field[] = [[3, 1, status], [16, 4, tag], [24, 4, this.takeStatSN()], ...extra];
    return this.pdu(0x21, 0x80, fields, segment);
  }

  /** Text pairs as a Login Response that goes along with what was asked. */
  loginResponse(request: Request, text: string, flags = request.header.getUint8(1)): Buffer {
    return this.pdu(0x23, flags, [
      [16, 4, request.tag],
      [24, 4, this.takeStatSN()],
      [14, 2, 1],
    ], Buffer.from(text));
  }

  loginRefusal(request: Request, statusClass: number, detail: number, text = ""): Buffer {
    const fields: Field[] = [[16, 4, request.tag], [36, 1, statusClass], [37, 1, detail]];
    return this.pdu(0x23, 0, fields, Buffer.from(text));
  }

  /** All of the answer to a well-formed command. */
  answer(request: Request): void {
    const data = answerData(request.cdb, request.expectedBytes);
    if (data === undefined) return this.send(this.response(request.tag, 2, fixedSense(5, 0x20, 0)));
    const missing = request.expectedBytes - data.length;
    const residual: Field[] = missing > 0 ? [[1, 1, 0x82], [44, 4, missing]] : [];
    const pdus: Buffer[] = [];
    for (let at = 0, dataSN = 0; at < data.length; at += 8192) {
      pdus.push(this.dataIn(request.tag, at, dataSN++, data.subarray(at, at + 8192)));
    }
    this.send(...pdus, this.response(request.tag, 0, undefined, residual));
  }
}

export function fixedSense(key: number, asc: number, ascq: number): Uint8Array {
  const sense = new Uint8Array(18);
  sense.set([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq]);
  return sense;
}

/** The data of the commands that this disk knows. */
function answerData(cdb: Uint8Array, expectedBytes: number): Uint8Array | undefined {
  const view = new DataView(cdb.buffer, cdb.byteOffset, 16);
  if (cdb[0] === 0x00) return new Uint8Array();
  if (cdb[0] === 0x12) return inquiryData(cdb);
  if (cdb[0] === 0x9e && cdb[1] === 0x10) {
    const capacity = Buffer.alloc(32);
    capacity.writeBigUInt64BE(BigInt(diskBlocks - 1), 0);
    capacity.writeUInt32BE(blockBytes, 8);
    return capacity;
  }
  if (cdb[0] === 0x88) {
    const data = new Uint8Array(expectedBytes);
    fillBlocks(data, Number(view.getBigUint64(2)));
    return data;
  }
  return undefined;
}

function inquiryData(cdb: Uint8Array): Uint8Array {
  if ((cdb[1] & 1) === 0) return Buffer.from("\0\0\x06\x02\x1f\0\0\0SCRIPTEDDISK            0001", "latin1");
  const pages: Record<number, number[]> = { 0: [0x00, 0x80], 0x80: [...Buffer.from("SCRIPTED-1")] };
  const body = pages[cdb[2]] ?? [];
  return Uint8Array.from([0, cdb[2], 0, body.length, ...body]);
}

/** True: the hook dealt with the request. */
export type Hook = (request: Request, peer: Peer) => boolean | void;

export class ScriptedTarget {
  readonly targetName = "iqn.2026-01.test:scripted";
  readonly peers: Peer[] = [];
  /** Every request that arrived. */
  readonly requests: Request[] = [];
  hook: Hook = () => {};
  onConnect: (peer: Peer) => void = () => {};
  #server: Server | undefined;

  async start(): Promise<void> {
    const server = createServer({ noDelay: true }, (socket) => this.#serve(socket));
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
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
    const peer = new Peer(socket, this.peers.length + 1);
    this.peers.push(peer);
    let pending = Buffer.alloc(0);
    socket.on("error", () => {});
    socket.on("data", (chunk: Buffer) => {
      pending = Buffer.concat([pending, chunk]);
      while (!socket.destroyed) {
        const taken = takeRequest(pending, peer);
        if (taken === undefined) return;
        pending = pending.subarray(taken.bytes);
        this.#handle(taken.request, peer);
      }
    });
    this.onConnect(peer);
  }

  #handle(request: Request, peer: Peer): void {
    this.requests.push(request);
    const isImmediate = (request.header.getUint8(0) & 0x40) !== 0;
    const cmdSN = request.header.getUint32(24);
    peer.expCmdSN = isImmediate ? cmdSN : (cmdSN + 1) >>> 0;
    if (this.hook(request, peer)) return;
    if (request.opcode === 0x03) answerLogin(request, peer);
    else if (request.opcode === 0x01) peer.answer(request);
    else if (request.opcode === 0x06) {
      peer.send(peer.pdu(0x26, 0x80, [[16, 4, request.tag], [24, 4, peer.takeStatSN()]]));
    } else if (request.opcode === 0x00 && request.tag !== 0xffffffff) {
      peer.send(
        peer.pdu(0x20, 0x80, [[16, 4, request.tag], [20, 4, 0xffffffff], [24, 4, peer.takeStatSN()]]),
      );
    }
  }
}

/** A login without authentication that accepts what is offered, digests included. */
export function answerLogin(request: Request, peer: Peer): void {
  const isOperational = (request.header.getUint8(1) >> 2 & 3) === 1;
  if (!isOperational) {
    return peer.send(peer.loginResponse(request, "AuthMethod=None\0TargetPortalGroupTag=1\0"));
  }
  const offered = new Map(
    Buffer.from(request.data).toString().split("\0").map((pair) => pair.split("=", 2) as [string, string]),
  );
  const wants = (key: string) => offered.get(key)?.startsWith("CRC32C") ?? false;
  const name = (isOn: boolean) => isOn ? "CRC32C" : "None";
  const digests = { header: wants("HeaderDigest"), data: wants("DataDigest") };
  const text = `HeaderDigest=${name(digests.header)}\0DataDigest=${name(digests.data)}\0` +
    "MaxRecvDataSegmentLength=65536\0DataPDUInOrder=Yes\0DataSequenceInOrder=Yes\0ErrorRecoveryLevel=0\0" +
    "InitialR2T=Yes\0ImmediateData=No\0MaxBurstLength=262144\0DefaultTime2Wait=2\0DefaultTime2Retain=0\0";
  peer.send(peer.loginResponse(request, text));
  peer.digests = digests;
  peer.isLoggedIn = true;
}

function takeRequest(pending: Buffer, peer: Peer): { request: Request; bytes: number } | undefined {
  if (pending.length < 48) return undefined;
  const dataBytes = pending.readUIntBE(5, 3);
  const dataAt = 48 + (peer.digests.header ? 4 : 0);
  const dataDigest = peer.digests.data && dataBytes > 0 ? 4 : 0;
  const bytes = dataAt + (dataBytes + 3 & ~3) + dataDigest;
  if (pending.length < bytes) return undefined;
  const copy = Uint8Array.from(pending.subarray(0, 48));
  const header = new DataView(copy.buffer);
  if (peer.digests.header && pending.readUInt32LE(48) !== crc32c(copy)) throw new Error("bad header digest");
  const request = {
    opcode: copy[0] & 0x3f,
    header,
    tag: header.getUint32(16),
    cdb: copy.subarray(32, 48),
    data: Uint8Array.from(pending.subarray(dataAt, dataAt + dataBytes)),
    expectedBytes: header.getUint32(20),
  };
  return { request, bytes };
}

/** Whether `request` is a READ(16). */
export function isRead(request: Request): boolean {
  return request.opcode === 0x01 && request.cdb[0] === 0x88;
}
