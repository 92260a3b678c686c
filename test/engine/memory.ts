/** In-memory parts for the engine's tests, with delays, reordering and faults drawn from a seed. */
import type { LocalDisk } from "../../src/engine/local-disk.ts";
import type { MapFile } from "../../src/engine/map-file.ts";
import type { Lane, Source, SourceExtent } from "../../src/engine/source.ts";

/** A small seeded generator (mulberry32): the same seed, the same run. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }
  chance(probability: number): boolean {
    return this.next() < probability;
  }
  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => 1 + this.below(255));
  }
}

/** Waits for some turns of the event loop; reorders what runs at the same time. */
export async function jitter(random: Random, turns: number): Promise<void> {
  for (let left = random.below(turns + 1); left > 0; left--) {
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}

export class MemorySource implements Source {
  readonly blockBytes = 512;
  readonly bytes: Uint8Array;
  readonly random: Random;
  turns = 6;
  holes: SourceExtent[] | undefined;
  /** Reads that overlap these offsets fail, after garbage was delivered. */
  badOffsets = new Set<number>();
  /** How often each 512-byte sector was read. */
  readonly reads: Uint16Array;
  /** When set, reads wait for it: the source cannot be reached. */
  outage: Promise<void> | undefined;

  constructor(bytes: Uint8Array, random: Random) {
    this.bytes = bytes;
    this.random = random;
    this.reads = new Uint16Array(bytes.length / 512);
  }

  async read(_lane: Lane, offset: number, into: Uint8Array): Promise<void> {
    if (offset % 512 !== 0 || into.length % 512 !== 0) throw new Error("a misaligned source read");
    await this.outage;
    await jitter(this.random, this.turns);
    into.fill(0xee);
    await jitter(this.random, this.turns);
    for (const bad of this.badOffsets) {
      if (bad >= offset && bad < offset + into.length) {
        throw Object.assign(new Error("medium error"), { code: "EIO" });
      }
    }
    for (let sector = offset / 512; sector < (offset + into.length) / 512; sector++) this.reads[sector]++;
    into.set(this.bytes.subarray(offset, offset + into.length));
  }

  async extents(offset: number): Promise<readonly SourceExtent[] | undefined> {
    await jitter(this.random, this.turns);
    return this.holes?.filter((extent) => extent.offsetBytes + extent.lengthBytes > offset).slice(0, 3);
  }
}

export class MemoryDisk implements LocalDisk {
  readonly bytes: Uint8Array;
  readonly random: Random;
  readonly zeroesFast = true;
  turns = 4;
  syncs = 0;
  /** Writes fail with this code while it is set. */
  writeError: string | undefined;
  /** Writes that begin at an offset wait for its promise. */
  readonly gates = new Map<number, Promise<void>>();

  constructor(bytes: Uint8Array, random: Random) {
    this.bytes = bytes;
    this.random = random;
  }
  async read(offset: number, into: Uint8Array): Promise<void> {
    await jitter(this.random, this.turns);
    into.set(this.bytes.subarray(offset, offset + into.length));
  }
  async write(offset: number, data: Uint8Array): Promise<void> {
    await this.gates.get(offset);
    await jitter(this.random, this.turns);
    if (this.writeError !== undefined) throw Object.assign(new Error("no"), { code: this.writeError });
    // In two halves, so that what is not ordered can be seen half done.
    const half = data.length >> 1;
    this.bytes.set(data.subarray(0, half), offset);
    await jitter(this.random, 2);
    this.bytes.set(data.subarray(half), offset + half);
  }
  async zero(offset: number, length: number): Promise<void> {
    await this.write(offset, new Uint8Array(length));
  }
  extentAt(_offset: number, end: number): { isHole: boolean; end: number } {
    return { isHole: false, end };
  }
  async sync(): Promise<void> {
    await jitter(this.random, this.turns);
    this.syncs++;
  }
  async close(): Promise<void> {}
}

export class MemoryMapFile implements MapFile {
  bytes = new Uint8Array(0);
  /** Writes that outlive the process throw it while it is set: the file system is full. */
  failing: Error | undefined;
  syncs = 0;
  read(offset: number, into: Uint8Array): void {
    into.fill(0);
    into.set(this.bytes.subarray(Math.min(offset, this.bytes.length), offset + into.length));
  }
  writeNow(offset: number, data: Uint8Array): void {
    if (this.failing !== undefined) throw this.failing;
    if (offset + data.length > this.bytes.length) {
      const grown = new Uint8Array(offset + data.length);
      grown.set(this.bytes);
      this.bytes = grown;
    }
    this.bytes.set(data, offset);
  }
  write(offset: number, data: Uint8Array): Promise<void> {
    this.writeNow(offset, data);
    return Promise.resolve();
  }
  sync(): Promise<void> {
    this.syncs++;
    return Promise.resolve();
  }
  clear(): void {
    this.bytes = new Uint8Array(0);
  }
  close(): void {}
}
