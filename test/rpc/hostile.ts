/** What hostile ends of a conversation say, whichever end they are. */
import { Buffer } from "node:buffer";
import { connect, type Socket } from "node:net";
import { encodeCbor } from "../../src/lib/cbor.ts";
import { encodeFrame } from "../../src/rpc/frames.ts";

export const banner = "dlsm-rpc 1\n";
export const mebibyte = 1024 * 1024;
export const maxFrameBytes = 16 * mebibyte;

export function frame(message: unknown): Buffer {
  return Buffer.from(encodeFrame(encodeCbor(message), 2 ** 30));
}

/** A payload that no encoder makes, in a frame. */
export function rawFrame(...parts: readonly (string | Uint8Array)[]): Buffer {
  const payload = Buffer.concat(parts.map((part) => Buffer.from(part as Uint8Array)));
  return Buffer.concat([length(payload.length), payload]);
}

/** The header of a frame. */
export function length(bytes: number): Buffer {
  const header = Buffer.alloc(4);
  header.writeUInt32BE(bytes);
  return header;
}

/** The head of {type, id, value} or {type, id, method, params}: the last value is still to come. */
function headOf(type: string, id: number): Buffer {
  const isCall = type === "call";
  const whole = encodeCbor({ type, id, ...(isCall ? { method: "echo", params: null } : { value: null }) });
  return Buffer.from(whole.subarray(0, -1));
}

export interface Bomb {
  readonly what: string;
  readonly frame: Buffer;
  readonly error: RegExp;
}

/** Messages that are small to send and would be huge, deep or endless to hold. */
export function bombs(type: "call" | "result", id: number): Bomb[] {
  const head = headOf(type, id);
  const of = (what: string, error: RegExp, ...parts: Uint8Array[]) => ({
    what,
    frame: rawFrame(head, ...parts),
    error,
  });
  const manyBytes = maxFrameBytes - head.length - 5;
  const many = (head: number) => Buffer.from([head, ...length(manyBytes)]);
  const tooMany = /more than \d+ values/;
  const tooShort = /ends too early/;
  return [
    of("16 million empty maps", tooMany, many(0x9a), Buffer.alloc(manyBytes, 0xa0)),
    of("16 million empty lists", tooMany, many(0x9a), Buffer.alloc(manyBytes, 0x80)),
    of("16 million numbers", tooMany, many(0x9a), Buffer.alloc(manyBytes, 1)),
    of("lists a million deep", /nested more than 64 deep/, Buffer.alloc(mebibyte, 0x81)),
    of("a list of 2^32 - 1", tooShort, Buffer.from([0x9a, 0xff, 0xff, 0xff, 0xff])),
    of("a map of 2^64 - 1", tooShort, Buffer.from([0xbb, ...Buffer.alloc(8, 0xff)])),
    of("a text of 2^64 - 1", tooShort, Buffer.from([0x7b, ...Buffer.alloc(8, 0xff)])),
    of("bytes of 4 GiB", tooShort, Buffer.from([0x5a, 0xff, 0xff, 0xff, 0xff])),
    of("a list without end", /indefinite/, Buffer.from([0x9f])),
    of("a tag", /a tag/, Buffer.from([0xc1, 0])),
  ];
}

/** Says what it is told and reads only what it is told; errors are nothing to it. */
export class HostileSocket {
  readonly socket: Socket;
  /** Resolves at the end of the connection. */
  readonly closed: Promise<void>;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => {});
    this.closed = new Promise((resolve) => socket.once("close", () => resolve()));
  }

  static connect(path: string): Promise<HostileSocket> {
    const socket = connect({ path, allowHalfOpen: true });
    return new Promise((resolve, reject) => {
      socket.once("error", reject);
      socket.once("connect", () => resolve(new HostileSocket(socket)));
    });
  }

  say(...parts: readonly (string | Uint8Array)[]): void {
    for (const part of parts) this.socket.write(part);
  }

  /** Resolves when the system has all that was said. */
  sent(): Promise<void> {
    return new Promise((resolve) => this.socket.write("", () => resolve()));
  }

  /** So often; stops when the other side has gone. */
  async flood(part: Uint8Array, times: number): Promise<void> {
    for (let time = 0; time < times && this.socket.writable; time++) {
      if (this.socket.write(part)) continue;
      await new Promise<void>((resolve) => {
        const go = () => {
          this.socket.off("drain", go).off("close", go);
          resolve();
        };
        this.socket.once("drain", go).once("close", go);
      });
    }
  }

  /** Reads and throws away, until the other side ends it. */
  async cutOff(): Promise<void> {
    this.socket.once("end", () => this.socket.destroy());
    this.socket.resume();
    await this.closed;
  }
}
