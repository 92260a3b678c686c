/** The reference `BlockDevice`: a disk in memory that logs its calls, with faults and delays on demand. */
import { allocationFlags, type BlockDevice, type Extent } from "../../src/nbd-server/mod.ts";

export interface Call {
  readonly method: "read" | "write" | "flush" | "trim" | "writeZeroes" | "prefetch" | "blockStatus";
  readonly offset: number;
  readonly length: number;
  /** Flags as far as the method has any. */
  readonly fua?: boolean;
  readonly noHole?: boolean;
  readonly fastZero?: boolean;
  readonly context?: string;
  readonly maxExtents?: number;
}

/** "dlsm:residency" as this device reports it: what was never written is 0, what was is 1. */
export const residency = "dlsm:residency";

const unitBytes = 4096;

export class MemoryDevice implements BlockDevice {
  readonly bytes: Uint8Array;
  readonly preferredBlockBytes = unitBytes;
  readonly metaContexts = ["base:allocation", residency];
  readonly calls: Call[] = [];
  /** Per unit of 4 KiB: is it allocated? */
  readonly #allocated: Uint8Array;
  /** Runs before each call; may wait, and may throw what the device shall reject with. */
  before: (call: Call) => Promise<void> | void = () => {};
  /** Told of the signal of each write. */
  onClient: (client: AbortSignal) => void = () => {};
  /** Pieces a read is cut into. */
  pieceBytes = 64 * 1024;
  isZeroingFast = true;

  constructor(sizeBytes: number) {
    this.bytes = new Uint8Array(sizeBytes);
    this.#allocated = new Uint8Array(Math.ceil(sizeBytes / unitBytes));
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  async read(offset: number, length: number): Promise<Uint8Array[]> {
    await this.#begin({ method: "read", offset, length });
    const pieces: Uint8Array[] = [];
    for (let at = offset; at < offset + length; at += this.pieceBytes) {
      pieces.push(this.bytes.slice(at, Math.min(at + this.pieceBytes, offset + length)));
    }
    return pieces;
  }

  async write(offset: number, data: Uint8Array, fua: boolean, client?: AbortSignal): Promise<void> {
    if (client !== undefined) this.onClient(client);
    await this.#begin({ method: "write", offset, length: data.length, fua });
    this.bytes.set(data, offset);
    this.#mark(Math.floor(offset / unitBytes), Math.ceil((offset + data.length) / unitBytes), 1);
  }

  async flush(): Promise<void> {
    await this.#begin({ method: "flush", offset: 0, length: 0 });
  }

  async trim(offset: number, length: number, fua: boolean): Promise<void> {
    await this.#begin({ method: "trim", offset, length, fua });
    this.#punch(offset, length);
  }

  async writeZeroes(
    offset: number,
    length: number,
    { noHole, fastZero, fua }: { noHole: boolean; fastZero: boolean; fua: boolean },
  ): Promise<void> {
    await this.#begin({ method: "writeZeroes", offset, length, noHole, fastZero, fua });
    if (fastZero && !this.isZeroingFast) throw coded("ENOTSUP", "zeroing is no quicker than writing");
    this.bytes.fill(0, offset, offset + length);
    if (noHole) this.#mark(Math.floor(offset / unitBytes), Math.ceil((offset + length) / unitBytes), 1);
    else this.#punch(offset, length);
  }

  async prefetch(offset: number, length: number): Promise<void> {
    await this.#begin({ method: "prefetch", offset, length });
  }

  async blockStatus(context: string, offset: number, length: number, maxExtents: number): Promise<Extent[]> {
    await this.#begin({ method: "blockStatus", offset, length, context, maxExtents });
    const hole = context === residency ? 0 : allocationFlags.hole | allocationFlags.zero;
    const data = context === residency ? 1 : 0;
    const extents: Extent[] = [];
    for (let at = offset; at < offset + length;) {
      const unit = Math.floor(at / unitBytes);
      const flags = this.#allocated[unit] === 1 ? data : hole;
      const lengthBytes = Math.min((unit + 1) * unitBytes, offset + length) - at;
      const last = extents.at(-1);
      if (last?.flags === flags) last.lengthBytes += lengthBytes;
      else if (extents.length < maxExtents) extents.push({ lengthBytes, flags });
      else break;
      at += lengthBytes;
    }
    return extents;
  }

  async #begin(call: Call): Promise<void> {
    this.calls.push(call);
    await this.before(call);
  }

  #punch(offset: number, length: number): void {
    const first = Math.ceil(offset / unitBytes);
    const end = Math.floor((offset + length) / unitBytes);
    if (first >= end) return;
    this.bytes.fill(0, first * unitBytes, end * unitBytes);
    this.#mark(first, end, 0);
  }

  #mark(first: number, end: number, allocated: number): void {
    this.#allocated.fill(allocated, first, end);
  }
}

/** An error as a device rejects with. */
export function coded(code: string, message: string): Error {
  return Object.assign(new Error(message), { code });
}
