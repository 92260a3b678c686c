/**
 * Bytes of the transmission phase in, requests out (NBD proto.md, "Request message").
 *
 * A pull decoder: `push` hands it a chunk, `next` takes out the next whole request. Before a request's
 * payload is gathered, `next` asks `admit` whether to take it, to drain it (a refused write: its payload is
 * skipped) or to wait; a waiting decoder stays where it is, so that nothing is received for which there is
 * no room. A payload that lies whole within one chunk is a view of it, which keeps the chunk (64 KiB as Node
 * reads them) alive until the request is done; otherwise it is gathered once into a buffer of its size.
 *
 *     header ──admit──▶ take  ──▶ payload (WRITE only) ──▶ request
 *        ▲        ├───▶ drain ──▶ skipped payload ───────▶ request
 *        └─later──┼───▶ wait
 *                 └───▶ divide: into parts, of which each is admitted and comes out like a request
 *
 * Pure.
 */
import { BufferPool } from "../lib/buffer-pool.ts";
import { command, magic, NbdProtocolError, partBytes, requestHeaderBytes } from "./protocol.ts";

export interface Request {
  readonly flags: number;
  /** A `command`, or any other number: validation refuses it. */
  readonly type: number;
  /** The client's cookie, two halves of 32 bits. */
  readonly cookieHigh: number;
  readonly cookieLow: number;
  /** Bytes; inexact from 2^53 on, which is past the end of any disk. */
  readonly offset: number;
  readonly length: number;
  /** A WRITE's data; empty for everything else, and for a drained WRITE. */
  payload: Uint8Array;
  /** Of a part: the length of the request that was divided. Otherwise `length`. */
  readonly wholeLength: number;
  /** Of a part: is it the first one, the last one? True for what was not divided. */
  readonly isFirst: boolean;
  readonly isLast: boolean;
}

export type Admission = "take" | "drain" | "wait" | "divide";

const nothing = new Uint8Array(0);

export class RequestDecoder {
  #chunk: Uint8Array = nothing;
  #view: DataView = new DataView(nothing.buffer);
  #at = 0;
  readonly #header = new Uint8Array(requestHeaderBytes);
  readonly #headerView = new DataView(this.#header.buffer);
  #headerFilled = 0;
  /** Its header is decoded, but it is not yet admitted or its payload not yet whole. */
  #current: Request | undefined;
  /** What comes after the part that is current. */
  #rest: Request | undefined;
  #admission: Admission = "wait";
  /** The payload gathered so far, or bytes of it skipped so far. */
  #gathered: Uint8Array = nothing;
  #gatheredBytes = 0;
  readonly #pool: BufferPool;

  /** @param pool where gathered payloads come from; who has the request gives them back, or keeps them */
  constructor(pool: BufferPool) {
    this.#pool = pool;
  }

  /** A request is decoded and waits to be admitted. */
  get isWaiting(): boolean {
    return this.#current !== undefined && this.#admission === "wait";
  }

  /** Only when the chunk before is used up, which it is when `next` returned nothing and none is waiting. */
  push(chunk: Uint8Array): void {
    if (this.#at < this.#chunk.length) throw new Error("push: the chunk before is not used up");
    this.#chunk = chunk;
    this.#view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    this.#at = 0;
  }

  /** The next whole request; undefined if more bytes are needed or it waits. Throws `NbdProtocolError`. */
  next(admit: (request: Request) => Admission): Request | undefined {
    this.#current ??= this.#nextHeader();
    const request = this.#current;
    if (request === undefined) return undefined;
    if (this.#admission === "wait") {
      this.#admission = admit(request);
      if (this.#admission === "wait") return undefined;
      if (this.#admission === "divide") {
        this.#divide(request);
        return this.next(admit);
      }
      this.#gatheredBytes = 0;
    }
    if (request.type === command.write && !this.#finishPayload(request)) return undefined;
    this.#current = undefined;
    this.#admission = "wait";
    if (this.#rest !== undefined) this.#divide(this.#rest);
    return request;
  }

  /** At multiples of the part's size: what is in one block of the disk stays together. */
  #divide(request: Request): void {
    this.#admission = "wait";
    const length = partBytes - request.offset % partBytes;
    const isLast = length >= request.length;
    this.#current = isLast ? request : { ...request, length, isLast };
    this.#rest = isLast ? undefined : {
      ...request,
      offset: request.offset + length,
      length: request.length - length,
      isFirst: false,
    };
  }

  #nextHeader(): Request | undefined {
    const available = this.#chunk.length - this.#at;
    if (this.#headerFilled === 0 && available >= requestHeaderBytes) {
      this.#at += requestHeaderBytes;
      return decodeHeader(this.#view, this.#at - requestHeaderBytes);
    }
    const count = Math.min(available, requestHeaderBytes - this.#headerFilled);
    this.#header.set(this.#chunk.subarray(this.#at, this.#at + count), this.#headerFilled);
    this.#headerFilled += count;
    this.#at += count;
    if (this.#headerFilled < requestHeaderBytes) return undefined;
    this.#headerFilled = 0;
    return decodeHeader(this.#headerView, 0);
  }

  #finishPayload(request: Request): boolean {
    const available = this.#chunk.length - this.#at;
    const missing = request.length - this.#gatheredBytes;
    const isTaken = this.#admission === "take";
    if (isTaken && this.#gatheredBytes === 0) {
      if (available >= missing) {
        request.payload = this.#chunk.subarray(this.#at, this.#at + missing);
        this.#at += missing;
        return true;
      }
      if (available === 0) return false;
      this.#gathered = this.#pool.take(request.length);
    }
    const count = Math.min(available, missing);
    if (isTaken) this.#gathered.set(this.#chunk.subarray(this.#at, this.#at + count), this.#gatheredBytes);
    this.#gatheredBytes += count;
    this.#at += count;
    if (this.#gatheredBytes < request.length) return false;
    if (isTaken) request.payload = this.#gathered;
    this.#gathered = nothing;
    return true;
  }
}

function decodeHeader(view: DataView, at: number): Request {
  const found = view.getUint32(at);
  if (found !== magic.request) {
    throw new NbdProtocolError(`not an NBD request: its magic number is 0x${found.toString(16)}`);
  }
  const length = view.getUint32(at + 24);
  return {
    flags: view.getUint16(at + 4),
    type: view.getUint16(at + 6),
    cookieHigh: view.getUint32(at + 8),
    cookieLow: view.getUint32(at + 12),
    offset: view.getUint32(at + 16) * 2 ** 32 + view.getUint32(at + 20),
    length,
    payload: nothing,
    wholeLength: length,
    isFirst: true,
    isLast: true,
  };
}
