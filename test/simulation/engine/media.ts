/**
 * What bytes are stored on: a cache in front of a medium. Written bytes are in the cache at once; of what was
 * written since the last sync a power failure leaves, sector by sector, any version.
 */
import type { Random } from "../../engine/memory.ts";

export const sectorBytes = 512;

/** What a sync that has begun will make durable: how many versions of each sector there were. */
export type Covered = ReadonlyMap<number, number>;

export class Media {
  /** As every reader sees it. */
  bytes: Uint8Array;
  /** Of sectors written since the last sync: all versions, from the durable one to the present one. */
  readonly #versions = new Map<number, Uint8Array[]>();
  /** Of sectors that a failed sync has given up: what the medium has; the cache still shows what was written. */
  readonly #lost = new Map<number, Uint8Array>();

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  get dirtySectors(): number {
    return this.#versions.size;
  }

  store(offset: number, data: Uint8Array): void {
    const end = offset + data.length;
    if (end > this.bytes.length) this.#grow(end);
    const first = Math.floor(offset / sectorBytes);
    const last = Math.ceil(end / sectorBytes);
    for (let sector = first; sector < last; sector++) {
      if (!this.#versions.has(sector)) {
        this.#versions.set(sector, [this.#lost.get(sector) ?? this.#sector(sector)]);
      }
      this.#lost.delete(sector);
    }
    this.bytes.set(data, offset);
    for (let sector = first; sector < last; sector++) this.#versions.get(sector)!.push(this.#sector(sector));
  }

  read(offset: number, into: Uint8Array): void {
    into.fill(0);
    into.set(this.bytes.subarray(Math.min(offset, this.bytes.length), offset + into.length));
  }

  /** A sync begins: it covers what is written by now. */
  covered(): Covered {
    return new Map([...this.#versions].map(([sector, versions]) => [sector, versions.length]));
  }

  settle(covered: Covered): void {
    for (const [sector, count] of covered) {
      const versions = this.#versions.get(sector);
      // A file that was emptied meanwhile, or another sync was quicker.
      if (versions === undefined || versions.length < count) continue;
      versions.splice(0, count - 1);
      if (versions.length === 1) this.#versions.delete(sector);
    }
  }

  /**
   * A sync that covers this failed: as Linux does it, what it was to store is given up and called clean, so that no
   * later sync stores it, while it can still be read.
   */
  giveUp(covered: Covered): void {
    for (const [sector, count] of covered) {
      const versions = this.#versions.get(sector);
      if (versions === undefined || versions.length < count) continue;
      if (versions.length > count) {
        versions.splice(1, count - 1);
      } else {
        this.#lost.set(sector, versions[0]);
        this.#versions.delete(sector);
      }
    }
  }

  /** What was given up is no longer in the cache either. */
  evict(): void {
    for (const [sector, bytes] of this.#lost) this.bytes.set(bytes, sector * sectorBytes);
    this.#lost.clear();
  }

  /** Each sector holds one of its versions. */
  losePower(random: Random): void {
    this.evict();
    // Mostly mixed; sometimes nothing of what was not synced, or all of it.
    const luck = [0, 1, undefined, undefined][random.below(4)];
    for (const [sector, versions] of this.#versions) {
      const at = luck === undefined ? random.below(versions.length) : luck * (versions.length - 1);
      this.bytes.set(versions[at], sector * sectorBytes);
    }
    this.#versions.clear();
  }

  /** What would be left if the power failed now and nothing of what was not synced had been stored. */
  durableBytes(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.bytes);
    for (const [sector, lost] of this.#lost) bytes.set(lost, sector * sectorBytes);
    for (const [sector, [oldest]] of this.#versions) bytes.set(oldest, sector * sectorBytes);
    return bytes;
  }

  /** Empties it, durably. */
  clear(): void {
    this.bytes = new Uint8Array(0);
    this.#versions.clear();
    this.#lost.clear();
  }

  #sector(number: number): Uint8Array {
    return this.bytes.slice(number * sectorBytes, (number + 1) * sectorBytes);
  }

  #grow(end: number): void {
    const grown = new Uint8Array(Math.ceil(end / 4096) * 4096);
    grown.set(this.bytes);
    this.bytes = grown;
  }
}
