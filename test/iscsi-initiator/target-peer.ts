/**
 * The target's side of one connection, without a transport: requests out of bytes, and the PDUs of an answer.
 * What it sends can be told to be anything.
 */
import { crc32c } from "../../src/iscsi-initiator/crc32c.ts";
import { answerData, fixedSense, type TargetDisk } from "./target-disk.ts";

export interface Request {
  readonly opcode: number;
  readonly header: DataView;
  readonly tag: number;
  readonly cdb: Uint8Array;
  readonly data: Uint8Array;
  readonly expectedBytes: number;
}

/** A part of a header that is set to a value. */
export type Field = readonly [offset: number, bytes: 1 | 2 | 3 | 4, value: number];

/** What the target's bytes go to. */
export interface PeerSocket {
  readonly destroyed: boolean;
  write(bytes: Uint8Array): unknown;
  destroy(): unknown;
}

export class Peer<S extends PeerSocket = PeerSocket> {
  readonly socket: S;
  /** Counts the connections of a target, from 1. */
  readonly index: number;
  disk: TargetDisk;
  statSN = 1000;
  expCmdSN = 0;
  /** Commands beyond the next that the initiator may send. */
  windowSize = 64;
  digests = { header: false, data: false };
  isLoggedIn = false;
  /** Of the initiator's session: the qualifier of its ISID; known from its first request on. */
  isidQualifier = 0;
  /** The challenge that was sent and is to be answered. */
  chapChallenge: Uint8Array = new Uint8Array();

  constructor(socket: S, index: number, disk: TargetDisk) {
    this.socket = socket;
    this.index = index;
    this.disk = disk;
  }

  /** A header of 48 bytes with `fields`, the later ones over the earlier, and data with padding and digests. */
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

  dataIn(
    tag: number,
    offset: number,
    dataSN: number,
    data: Uint8Array,
    extra: readonly Field[] = [],
  ): Buffer {
    const fields: Field[] = [[16, 4, tag], [20, 4, 0xffffffff], [36, 4, dataSN], [40, 4, offset]];
    return this.pdu(0x25, 0x80, [...fields, ...extra], data);
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

  /** A ping of the target, which wants an answer if it has a tag (RFC 7143 §11.19). */
  ping(targetTag: number, data?: Uint8Array): Buffer {
    return this.pdu(0x20, 0x80, [[16, 4, 0xffffffff], [20, 4, targetTag], [24, 4, this.statSN]], data);
  }

  asyncMessage(event: number, data?: Uint8Array, extra: readonly Field[] = []): Buffer {
    const fields: Field[] = [[16, 4, 0xffffffff], [24, 4, this.takeStatSN()], [36, 1, event]];
    return this.pdu(0x32, 0x80, [...fields, ...extra], data);
  }

  reject(reason: number, rejected: Uint8Array): Buffer {
    const fields: Field[] = [[2, 1, reason], [16, 4, 0xffffffff], [24, 4, this.takeStatSN()]];
    return this.pdu(0x3f, 0x80, fields, rejected);
  }

  /** The right data of a read as Data-In PDUs of at most `pieceBytes`. */
  dataOf(request: Request, pieceBytes?: number): Buffer[] {
    const data = answerData(this.disk, request.cdb, request.expectedBytes) ?? new Uint8Array();
    return this.piecesOf(request, data, pieceBytes);
  }

  piecesOf(request: Request, data: Uint8Array, pieceBytes = 8192): Buffer[] {
    const pdus: Buffer[] = [];
    for (let at = 0, dataSN = 0; at < data.length; at += pieceBytes) {
      pdus.push(this.dataIn(request.tag, at, dataSN++, data.subarray(at, at + pieceBytes)));
    }
    return pdus;
  }

  /** All of the answer to a well-formed command. */
  answer(request: Request): void {
    const data = answerData(this.disk, request.cdb, request.expectedBytes);
    if (data === undefined) this.send(this.response(request.tag, 2, fixedSense(5, 0x20, 0)));
    else this.answerWith(request, data);
  }

  /** GOOD, and these bytes, which may be fewer than were asked for. */
  answerWith(request: Request, data: Uint8Array): void {
    const missing = request.expectedBytes - data.length;
    const residual: Field[] = missing > 0 ? [[1, 1, 0x82], [44, 4, missing]] : [];
    this.send(...this.piecesOf(request, data), this.response(request.tag, 0, undefined, residual));
  }
}

/** Takes the requests out of what the initiator sends. */
export class RequestReader {
  #pending = Buffer.alloc(0);

  /** The requests that `chunk` completes. Throws on a wrong digest. */
  *push(chunk: Uint8Array, peer: Peer): Generator<Request> {
    this.#pending = Buffer.concat([this.#pending, chunk]);
    for (;;) {
      const taken = takeRequest(this.#pending, peer);
      if (taken === undefined) return;
      this.#pending = this.#pending.subarray(taken.bytes);
      yield taken.request;
    }
  }
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

/** The request's own header, as a Reject brings it back. */
export function bytesOf(request: Request): Uint8Array {
  return new Uint8Array(request.header.buffer as ArrayBuffer);
}

/** Whether `request` is a READ(16). */
export function isRead(request: Request): boolean {
  return request.opcode === 0x01 && request.cdb[0] === 0x88;
}

/** Where a READ(16) begins. */
export function lbaOf(request: Request): number {
  return Number(new DataView(request.cdb.buffer, request.cdb.byteOffset, 16).getBigUint64(2));
}
