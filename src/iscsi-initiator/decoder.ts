/**
 * Bytes in, PDUs out (RFC 7143 §11.2). Pure: it owns no socket, and takes the stream in pieces of any size.
 *
 * A data segment goes straight to where the sink wants it, so the payload of a Data-In is copied once, from
 * the chunk that the socket read into the caller's buffer. Memory is bounded: one header with its longest
 * possible additional segments, and one data segment of at most `maxDataBytes`.
 *
 * | part    | bytes                                                          |
 * |---------|----------------------------------------------------------------|
 * | header  | 48, additional header segments (up to 1020), digest (0 or 4)   |
 * | data    | DataSegmentLength                                              |
 * | trailer | padding to a multiple of 4, digest (0 or 4; none without data) |
 */
import { crc32c } from "./crc32c.ts";
import { DigestError, ProtocolError } from "./errors.ts";
import { type Digests, Header, headerBytes, noDigests } from "./pdu.ts";

export interface PduSink {
  /**
   * A header is complete, and its data follows, if it has any. Says where the data goes: a buffer of exactly
   * `header.dataBytes`, or "skip", or undefined for a new buffer.
   */
  onHeader(header: Header): Uint8Array | "skip" | undefined;
  /** The PDU is complete. `data` is what `onHeader` chose, empty if that was "skip". */
  onPdu(header: Header, data: Uint8Array): void;
}

const maxHeaderBytes = headerBytes + 255 * 4 + 4;
const nothing = new Uint8Array();

export class PduDecoder {
  readonly #sink: PduSink;
  #digests: Digests = noDigests;
  #maxDataBytes: number;
  #stopped = false;

  #part: "header" | "data" | "trailer" = "header";
  readonly #headerBuffer = new Uint8Array(maxHeaderBytes);
  readonly #header = new Header(this.#headerBuffer.subarray(0, headerBytes));
  #wantedBytes = headerBytes;
  /** Bytes of the current part so far. */
  #filledBytes = 0;

  #data: Uint8Array = nothing;
  #skipData = false;
  #dataBytes = 0;
  #dataCrc = 0;
  readonly #trailer = new Uint8Array(3 + 4);

  constructor(sink: PduSink, maxDataBytes: number) {
    this.#sink = sink;
    this.#maxDataBytes = maxDataBytes;
  }

  /** New terms for the PDUs after the current one. */
  configure(digests: Digests, maxDataBytes: number): void {
    this.#digests = digests;
    this.#maxDataBytes = maxDataBytes;
  }

  /** Nothing is stored and nothing called any more, not even for the rest of the current chunk. */
  stop(): void {
    this.#stopped = true;
    this.skipData();
  }

  /** The rest of the current data segment is stored nowhere. */
  skipData(): void {
    this.#data = nothing;
    this.#skipData = true;
  }

  /** Throws `ProtocolError` or `DigestError`, after which the stream cannot be followed any more. */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length && !this.#stopped) {
      const takenBytes = Math.min(chunk.length - at, this.#wantedBytes - this.#filledBytes);
      this.#store(chunk.subarray(at, at + takenBytes));
      at += takenBytes;
      this.#filledBytes += takenBytes;
      if (this.#filledBytes === this.#wantedBytes) this.#finishPart();
    }
  }

  #store(piece: Uint8Array): void {
    if (this.#part === "header") this.#headerBuffer.set(piece, this.#filledBytes);
    else if (this.#part === "trailer") this.#trailer.set(piece, this.#filledBytes);
    else {
      if (this.#digests.data) this.#dataCrc = crc32c(piece, this.#dataCrc);
      if (!this.#skipData) this.#data.set(piece, this.#filledBytes);
    }
  }

  #finishPart(): void {
    if (this.#part === "header") this.#finishHeader();
    else if (this.#part === "data") this.#beginTrailer();
    else this.#finishTrailer();
  }

  #finishHeader(): void {
    const header = this.#header;
    const digestAt = headerBytes + header.additionalBytes;
    const wholeBytes = digestAt + (this.#digests.header ? 4 : 0);
    if (this.#wantedBytes < wholeBytes) {
      this.#wantedBytes = wholeBytes;
      return;
    }
    if (this.#digests.header) {
      const expected = new DataView(this.#headerBuffer.buffer).getUint32(digestAt, true);
      if (crc32c(this.#headerBuffer.subarray(0, digestAt)) !== expected) {
        throw new DigestError("a header digest does not match");
      }
    }
    if (header.dataBytes > this.#maxDataBytes) {
      throw new ProtocolError(
        `the target sent ${header.dataBytes} bytes in one PDU, not ${this.#maxDataBytes}`,
      );
    }
    this.#beginData();
  }

  #beginData(): void {
    this.#dataBytes = this.#header.dataBytes;
    this.#dataCrc = 0;
    const place = this.#sink.onHeader(this.#header);
    if (this.#stopped) return;
    this.#skipData = place === "skip";
    this.#data = place === "skip" ? nothing : place ?? new Uint8Array(this.#dataBytes);
    if (this.#dataBytes === 0) this.#finishPdu();
    else this.#begin("data", this.#dataBytes);
  }

  #beginTrailer(): void {
    const paddingBytes = -this.#dataBytes & 3;
    const trailerBytes = paddingBytes + (this.#digests.data ? 4 : 0);
    if (trailerBytes === 0) this.#finishPdu();
    else this.#begin("trailer", trailerBytes);
  }

  #finishTrailer(): void {
    if (this.#digests.data) {
      const paddingBytes = -this.#dataBytes & 3;
      const crc = crc32c(this.#trailer.subarray(0, paddingBytes), this.#dataCrc);
      if (crc !== new DataView(this.#trailer.buffer).getUint32(paddingBytes, true)) {
        throw new DigestError("a data digest does not match");
      }
    }
    this.#finishPdu();
  }

  #finishPdu(): void {
    const data = this.#data;
    this.#data = nothing;
    this.#begin("header", headerBytes);
    this.#sink.onPdu(this.#header, data);
  }

  #begin(part: "header" | "data" | "trailer", wantedBytes: number): void {
    this.#part = part;
    this.#wantedBytes = wantedBytes;
    this.#filledBytes = 0;
  }
}
