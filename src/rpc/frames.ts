/**
 * Framing: what is on the wire, without any stream. Each direction is
 *
 *     dlsm-rpc <version> <capability> …\n       one line of ASCII, at most 512 bytes
 *     u32 length (big-endian), payload          any number of frames; 1 <= length <= the receiver's limit
 *
 * A readable first line lets a person see what runs where, and lets a login script's chatter or another
 * program be told from dlsm.
 *
 * Pure.
 */
import { quoted } from "../lib/quoted.ts";
import { RpcProtocolError } from "./errors.ts";

export const protocolVersion = 1;
export const defaultMaxFrameBytes = 16 * 1024 * 1024;
export const maxBannerBytes = 512;
const protocolName = "dlsm-rpc";
const headerBytes = 4;
/** What is kept ready for a payload before any of it is here; it grows with what comes. */
const firstBufferBytes = 64 * 1024;
const newline = 10;

export interface Banner {
  readonly version: number;
  /** Words without spaces, such as `max-calls=32`; unknown ones are to be ignored. */
  readonly capabilities: readonly string[];
}

export function encodeBanner({ version, capabilities }: Banner): Uint8Array {
  const bytes = new TextEncoder().encode([protocolName, version, ...capabilities].join(" ") + "\n");
  if (bytes.length > maxBannerBytes) throw new RangeError("too many capabilities for one line");
  return bytes;
}

/** The value of the capability `name=value`, or undefined. */
export function capability(banner: Banner, name: string): string | undefined {
  const word = banner.capabilities.find((each) => each.startsWith(`${name}=`));
  return word?.slice(name.length + 1);
}

/** The value of the capability `name=value` as a whole number of at least 1, or undefined. */
export function numericCapability(banner: Banner, name: string): number | undefined {
  const value = Number(capability(banner, name) ?? NaN);
  return Number.isSafeInteger(value) && value >= 1 ? value : undefined;
}

/** The frame for a payload, ready to be written. Throws RangeError if it is larger than the limit. */
export function encodeFrame(payload: Uint8Array, maxFrameBytes: number): Uint8Array {
  if (payload.length > maxFrameBytes) {
    throw new RangeError(`a message of ${payload.length} bytes, where ${maxFrameBytes} are allowed`);
  }
  const frame = new Uint8Array(headerBytes + payload.length);
  new DataView(frame.buffer).setUint32(0, payload.length);
  frame.set(payload, headerBytes);
  return frame;
}

export interface FrameEvents {
  onBanner(banner: Banner): void;
  /** `payload` belongs to the receiver. */
  onFrame(payload: Uint8Array): void;
}

/** Takes bytes as they come, gives the banner and then frames. Holds at most twice of what came of one frame. */
export class FrameDecoder {
  readonly #events: FrameEvents;
  readonly #maxFrameBytes: number;
  /** What is being filled: the banner line, a header, or a payload. */
  #part: "banner" | "header" | "payload" = "banner";
  #buffer = new Uint8Array(maxBannerBytes);
  #wanted = maxBannerBytes;
  #filled = 0;

  constructor(events: FrameEvents, maxFrameBytes = defaultMaxFrameBytes) {
    this.#events = events;
    this.#maxFrameBytes = maxFrameBytes;
  }

  /** Throws RpcProtocolError for bytes that break the framing; the decoder is of no use afterwards. */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      const isBanner = this.#part === "banner";
      const lineEnd = isBanner ? chunk.indexOf(newline, at) : -1;
      const available = (lineEnd === -1 ? chunk.length : lineEnd + 1) - at;
      const taken = Math.min(available, this.#wanted - this.#filled);
      this.#makeRoom(this.#filled + taken);
      this.#buffer.set(chunk.subarray(at, at + taken), this.#filled);
      this.#filled += taken;
      at += taken;
      const isLineComplete = lineEnd !== -1 && taken === available;
      const isFull = this.#filled === this.#wanted;
      if (isBanner ? isLineComplete : isFull) this.#complete();
      else if (isBanner && isFull) throw this.#notOurs();
    }
  }

  /** Whether the bytes so far end between two messages. */
  get isBetweenFrames(): boolean {
    return this.#part === "header" && this.#filled === 0;
  }

  /** What was received of the first line while it is not complete, for an error message. */
  get partialBanner(): string {
    return this.#part === "banner" ? readable(this.#buffer.subarray(0, this.#filled)) : "";
  }

  #complete(): void {
    const complete = this.#buffer.subarray(0, this.#filled);
    switch (this.#part) {
      case "banner": {
        const banner = parseBanner(complete);
        if (banner === undefined) throw this.#notOurs();
        this.#expect("header", headerBytes);
        return this.#events.onBanner(banner);
      }
      case "header": {
        const length = new DataView(complete.buffer, complete.byteOffset).getUint32(0);
        if (length === 0 || length > this.#maxFrameBytes) {
          throw new RpcProtocolError(
            `the other side announced a message of ${length} bytes, where 1 to ${this.#maxFrameBytes} are allowed`,
          );
        }
        return this.#expect("payload", length);
      }
      case "payload":
        this.#expect("header", headerBytes);
        return this.#events.onFrame(complete);
    }
  }

  #expect(part: "header" | "payload", lengthBytes: number): void {
    this.#part = part;
    this.#wanted = lengthBytes;
    this.#buffer = new Uint8Array(Math.min(lengthBytes, firstBufferBytes));
    this.#filled = 0;
  }

  /** A length that was only announced costs nothing. */
  #makeRoom(neededBytes: number): void {
    if (neededBytes <= this.#buffer.length) return;
    const larger = new Uint8Array(Math.min(this.#wanted, Math.max(neededBytes, 2 * this.#buffer.length)));
    larger.set(this.#buffer.subarray(0, this.#filled));
    this.#buffer = larger;
  }

  #notOurs(): RpcProtocolError {
    return new RpcProtocolError(
      `the other side does not speak ${protocolName}; it said ${this.partialBanner}`,
      {
        hint: "if that comes from a login script, make it quiet for commands run over ssh; " +
          "otherwise check that dlsm is installed there",
      },
    );
  }
}

function parseBanner(line: Uint8Array): Banner | undefined {
  const match = /^dlsm-rpc (\d{1,9})((?: [!-~]+)*)\n$/.exec(new TextDecoder().decode(line));
  if (match === null) return undefined;
  return { version: Number(match[1]), capabilities: match[2].split(" ").filter((word) => word !== "") };
}

function readable(bytes: Uint8Array): string {
  return quoted(new TextDecoder().decode(bytes.subarray(0, 200)).trimEnd());
}
