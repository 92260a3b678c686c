/** The local disk: slow, out of order, in pieces, and sometimes broken. */
import type { Random } from "../../engine/memory.ts";
import type { LocalDisk } from "../../../src/engine/local-disk.ts";
import type { SimClock } from "../clock.ts";
import type { Fault, Faults } from "./faults.ts";
import { type Media, sectorBytes } from "./media.ts";
import { grainBytes, Wrong } from "./model.ts";

export interface DiskWorld {
  readonly clock: SimClock;
  readonly random: Random;
  readonly faults: Faults;
  readonly diskMs: number;
  /** Throws if nothing may be written now. */
  mayWrite(): void;
  /**
   * A sync has failed. Between the system's word of that and the process's note of it nobody can see to it that a
   * kill does no harm, so here none comes between.
   */
  syncFailed(): void;
}

/** Bytes that are still to be stored: of a request under way. */
interface Piece {
  readonly offset: number;
  readonly bytes: () => Uint8Array;
}

/** As one process has it open. When the process dies, the system may go on with what it was asked for, or not. */
export class SimDisk implements LocalDisk {
  readonly zeroesFast = true;
  readonly #media: Media;
  readonly #world: DiskWorld;
  readonly #pieces = new Set<Piece>();
  #isDead = false;
  #failure: Error | undefined;

  constructor(media: Media, world: DiskWorld) {
    this.#media = media;
    this.#world = world;
  }

  /** A sync failed: what became durable nobody knows, until the disk is opened anew. */
  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    await this.#delay();
    this.#mayFail("diskErrors");
    const half = Math.floor(into.length / 2 / grainBytes) * grainBytes;
    this.#media.read(offset, into.subarray(0, half));
    if (this.#world.random.chance(0.3)) await this.#delay();
    this.#media.read(offset + half, into.subarray(half));
  }

  write(offset: number, data: Uint8Array): Promise<void> {
    return this.#store(offset, data.length, (from, to) => data.slice(from, to));
  }

  zero(offset: number, length: number): Promise<void> {
    return this.#store(offset, length, (from, to) => new Uint8Array(to - from));
  }

  extentAt(offset: number, end: number): { isHole: boolean; end: number } {
    const words = new Uint32Array(this.#media.bytes.buffer);
    const isZero = (at: number) => words[Math.floor(at / grainBytes) * (grainBytes / 4)] === 0;
    const isHole = isZero(offset);
    let stop = offset;
    while (stop < end && isZero(stop) === isHole) stop = Math.min(end, stop + grainBytes);
    return { isHole, end: stop };
  }

  async sync(): Promise<void> {
    const covered = this.#media.covered();
    await this.#delay();
    if (this.#failure === undefined && this.#world.faults.has("syncErrors")) {
      this.#world.faults.meet("syncErrors");
      this.#media.giveUp(covered);
      this.#world.syncFailed();
      this.#failure = failure("EIO");
    }
    if (this.#failure !== undefined) throw this.#failure;
    this.#media.settle(covered);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  /** The process is killed: some of what it had asked for is done all the same, at once; nothing after that. */
  die(): void {
    for (const piece of this.#pieces) {
      if (this.#world.random.chance(0.5)) this.#media.store(piece.offset, piece.bytes());
    }
    this.#pieces.clear();
    this.#isDead = true;
  }

  async #store(
    offset: number,
    length: number,
    bytes: (from: number, to: number) => Uint8Array,
  ): Promise<void> {
    this.#world.mayWrite();
    if (offset < 0 || offset + length > this.#media.bytes.length) throw new Wrong("a write outside the disk");
    const pieces = this.#split(offset, length).map(([from, to]): Piece => ({
      offset: from,
      bytes: () => bytes(from - offset, to - offset),
    }));
    for (const piece of pieces) this.#pieces.add(piece);
    try {
      for (const piece of pieces) {
        await this.#delay();
        this.#mayFail("diskErrors");
        this.#mayFail("diskFull");
        this.#media.store(piece.offset, piece.bytes());
        this.#pieces.delete(piece);
      }
    } finally {
      for (const piece of pieces) this.#pieces.delete(piece);
    }
  }

  /** Where the parts of a request part: between sectors, in any order. */
  #split(offset: number, length: number): [from: number, to: number][] {
    const { random } = this.#world;
    const end = offset + length;
    const middle = Math.ceil((offset + random.below(length)) / sectorBytes) * sectorBytes;
    if (middle <= offset || middle >= end) return [[offset, end]];
    const parts: [number, number][] = [[offset, middle], [middle, end]];
    return random.chance(0.5) ? parts : parts.reverse();
  }

  #delay(): Promise<void> {
    const { clock, random, faults, diskMs } = this.#world;
    let delayMs = random.next() * 2 * diskMs;
    if (faults.has("stalls")) {
      faults.meet("stalls");
      delayMs += random.next() * 500;
    }
    return new Promise((resolve) => void clock.after(delayMs, () => this.#isDead || resolve()));
  }

  #mayFail(fault: Fault): void {
    const { faults, random } = this.#world;
    if (!faults.has(fault) || !random.chance(0.5)) return;
    faults.meet(fault);
    throw failure(fault === "diskFull" ? "ENOSPC" : "EIO");
  }
}

export function failure(code: string): Error {
  return Object.assign(new Error(`simulated ${code}`), { code });
}
