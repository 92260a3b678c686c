/** The source behind a network: late, out of order, out of reach, and with sectors that cannot be read. */
import type { Random } from "../../engine/memory.ts";
import type { Lane, Source, SourceExtent } from "../../../src/engine/source.ts";
import type { SimClock } from "../clock.ts";
import { failure } from "./disk.ts";
import type { Faults } from "./faults.ts";
import { grainBytes, Model, Wrong } from "./model.ts";
import type { Scenario } from "./scenario.ts";

export interface SourceWorld {
  readonly clock: SimClock;
  readonly random: Random;
  readonly faults: Faults;
  readonly sourceMs: number;
  /** Resolves when the source can be reached. */
  reachable(): Promise<void>;
  /** A command for these bytes goes out; false if its data is not to be kept. Throws Wrong if it may not. */
  asked(lane: Lane, offset: number, length: number): boolean;
  /** The bytes of a command whose data may be kept have crossed the network. */
  crossed(lane: Lane, offset: number, length: number): void;
}

/** The disk itself. Its user may change it until the hand-off. */
export class SourceDisk {
  readonly bytes: Uint8Array;
  holes: readonly SourceExtent[] | undefined;
  /** Sectors that cannot be read. */
  readonly bad = new Set<number>();

  constructor(bytes: Uint8Array, holes: readonly SourceExtent[] | undefined) {
    this.bytes = bytes;
    this.holes = holes;
  }

  /** By its user there. */
  write(offset: number, data: Uint8Array): void {
    this.bytes.set(data, offset);
    const isOther = (hole: SourceExtent) =>
      hole.offsetBytes >= offset + data.length || hole.offsetBytes + hole.lengthBytes <= offset;
    this.holes = this.holes?.filter((hole) => hole.mapped || isOther(hole));
  }
}

/** As one engine process sees it. */
export class SimSource implements Source {
  readonly blockBytes = 512;
  readonly #disk: SourceDisk;
  readonly #world: SourceWorld;
  readonly #closed = Promise.withResolvers<never>();
  #isClosed = false;

  constructor(disk: SourceDisk, world: SourceWorld) {
    this.#disk = disk;
    this.#world = world;
    this.#closed.promise.catch(() => {});
  }

  /** Pending reads fail. */
  close(): void {
    this.#isClosed = true;
    this.#closed.reject(failure("EIO"));
  }

  read(lane: Lane, offset: number, into: Uint8Array): Promise<void> {
    const isToKeep = this.#world.asked(lane, offset, into.length);
    if (this.#isClosed) return Promise.reject(failure("EIO"));
    return Promise.race([this.#read(lane, offset, into, isToKeep), this.#closed.promise]);
  }

  async #read(lane: Lane, offset: number, into: Uint8Array, isToKeep: boolean): Promise<void> {
    const { random, faults } = this.#world;
    if (offset % 512 !== 0 || into.length % 512 !== 0) throw new Wrong("a misaligned read of the source");
    if (offset + into.length > this.#disk.bytes.length) throw new Wrong("a read beyond the source's end");
    for (;;) {
      await this.#world.reachable();
      await this.#delay();
      if (this.#isClosed) return;
      // A part has arrived, and may be anything until the command has ended.
      if (random.chance(0.5)) {
        into.fill(0xee, 0, random.below(into.length + 1));
        await this.#delay();
        if (this.#isClosed) return;
      }
      if (faults.has("outages")) continue;
      if (this.#isBad(offset, into.length)) {
        into.fill(0xee);
        faults.meet("mediumErrors");
        throw failure("EIO");
      }
      into.set(this.#disk.bytes.subarray(offset, offset + into.length));
      if (isToKeep) this.#world.crossed(lane, offset, into.length);
      // GOOD status comes after the data.
      if (random.chance(0.3)) await this.#delay();
      return;
    }
  }

  async extents(offset: number): Promise<readonly SourceExtent[] | undefined> {
    const { random } = this.#world;
    await this.#world.reachable();
    await this.#delay();
    if (this.#isClosed) throw failure("EIO");
    if (random.chance(0.05)) throw failure("EIO");
    const following = this.#disk.holes?.filter((hole) => hole.offsetBytes + hole.lengthBytes > offset);
    return following?.slice(0, 1 + random.below(3));
  }

  #isBad(offset: number, length: number): boolean {
    for (let sector = offset / 512; sector < (offset + length) / 512; sector++) {
      if (this.#disk.bad.has(sector)) return true;
    }
    return false;
  }

  #delay(): Promise<void> {
    const { clock, random, sourceMs } = this.#world;
    // Mostly quick, at times slow: what was asked for later comes earlier.
    return clock.sleep(random.next() * sourceMs * (random.chance(0.1) ? 10 : 2));
  }
}

/** A new source: its content, and the holes that its target tells of, if it does. */
export function makeSource({ sizeBytes, has }: Scenario, model: Model, random: Random): SourceDisk {
  const grains = sizeBytes / grainBytes;
  const content = model.newContent("the source");
  const bytes = Model.bytesOf(content, 0, grains);
  model.done("the source", content, 0, grains);
  if (!has.has("holes")) return new SourceDisk(bytes, undefined);
  const holes: SourceExtent[] = [];
  for (let at = 0; at < sizeBytes;) {
    const length = Math.min(sizeBytes - at, 512 * (1 + random.below(64)));
    const mapped = random.chance(0.5);
    if (!mapped) {
      bytes.fill(0, at, at + length);
      model.done("a hole", 0, at / grainBytes, (at + length) / grainBytes);
    }
    // What is mapped is told, or left out.
    if (!mapped || random.chance(0.5)) holes.push({ offsetBytes: at, lengthBytes: length, mapped });
    at += length;
  }
  return new SourceDisk(bytes, holes);
}
