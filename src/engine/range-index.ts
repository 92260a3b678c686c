/**
 * The ranges of blocks that something is being done to right now, found by block. Pure.
 *
 * Small ranges lie in buckets of 256 blocks (1 MiB at 4 KiB a block), so that a look-up costs what overlaps
 * it and not what is under way in all; the few wide ones are looked through one by one.
 */
export interface BlockRange {
  readonly first: number;
  readonly count: number;
}

const bucketBlocks = 256;
const wideBuckets = 8;

export class RangeIndex<T extends BlockRange> {
  readonly #buckets = new Map<number, T[]>();
  readonly #all = new Set<T>();
  #wide: T[] = [];

  get size(): number {
    return this.#all.size;
  }

  [Symbol.iterator](): Iterator<T> {
    return this.#all.values();
  }

  add(range: T): void {
    this.#all.add(range);
    const from = Math.floor(range.first / bucketBlocks);
    const to = Math.floor((range.first + range.count - 1) / bucketBlocks);
    if (to - from >= wideBuckets) {
      this.#wide.push(range);
      return;
    }
    for (let number = from; number <= to; number++) {
      const bucket = this.#buckets.get(number);
      if (bucket === undefined) this.#buckets.set(number, [range]);
      else bucket.push(range);
    }
  }

  delete(range: T): void {
    if (!this.#all.delete(range)) return;
    const from = Math.floor(range.first / bucketBlocks);
    const to = Math.floor((range.first + range.count - 1) / bucketBlocks);
    if (to - from >= wideBuckets) {
      this.#wide = this.#wide.filter((other) => other !== range);
      return;
    }
    for (let number = from; number <= to; number++) {
      const bucket = this.#buckets.get(number)!;
      if (bucket.length === 1) this.#buckets.delete(number);
      else bucket.splice(bucket.indexOf(range), 1);
    }
  }

  /** Of the ranges that overlap [first, first + count), one with the lowest start; undefined if none does. */
  lowest(first: number, count: number, accept?: (range: T) => boolean): T | undefined {
    if (this.#all.size === 0) return undefined;
    const end = first + count;
    let found: T | undefined;
    const look = (range: T) => {
      if (range.first >= end || range.first + range.count <= first) return;
      if (found !== undefined && range.first >= found.first) return;
      if (accept === undefined || accept(range)) found = range;
    };
    const from = Math.floor(first / bucketBlocks);
    const to = Math.floor((end - 1) / bucketBlocks);
    if (to - from >= this.#all.size) {
      for (const range of this.#all) look(range);
      return found;
    }
    for (const range of this.#wide) look(range);
    for (let number = from; number <= to; number++) {
      const bucket = this.#buckets.get(number);
      if (bucket !== undefined) { for (const range of bucket) look(range); }
    }
    return found;
  }
}
