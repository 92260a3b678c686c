/**
 * What is known of the source's holes: the extents of the last answer, looked up by offset.
 *
 * Asked piece by piece, because one answer of the target holds a bounded number of extents. Gaps between
 * extents, and everything beyond the answer, count as mapped. Only whole blocks in a hole count.
 */
import type { BlockRange } from "./range-index.ts";
import type { Source, SourceExtent } from "./source.ts";

/** Without an answer this much counts as mapped before the target is asked again. */
const blindBytes = 1024 ** 3;

export class Holes {
  readonly #source: Source;
  readonly #blockBytes: number;
  readonly #sizeBytes: number;
  #from = 0;
  #to = 0;
  #unmapped: SourceExtent[] = [];
  #isUnsupported = false;

  constructor(source: Source, geometry: { readonly blockBytes: number; readonly sizeBytes: number }) {
    this.#source = source;
    this.#blockBytes = geometry.blockBytes;
    this.#sizeBytes = geometry.sizeBytes;
  }

  /** Whether `at` is answered; if not, `learn` first. */
  knows(block: number): boolean {
    const offset = block * this.#blockBytes;
    return this.#isUnsupported || (offset >= this.#from && offset < this.#to);
  }

  /** Asks the source about what follows `block`. Never rejects: what is not known counts as mapped. */
  async learn(block: number): Promise<void> {
    const from = block * this.#blockBytes;
    let extents: readonly SourceExtent[] | undefined;
    try {
      extents = await this.#source.extents(from);
    } catch {
      extents = [];
    }
    if (extents === undefined) {
      this.#isUnsupported = true;
      return;
    }
    const last = extents.at(-1);
    const answered = last === undefined ? from : last.offsetBytes + last.lengthBytes;
    this.#from = from;
    this.#to = Math.max(answered, from + this.#blockBytes, extents.length === 0 ? from + blindBytes : 0);
    this.#unmapped = extents.filter((extent) => !extent.mapped).sort((a, b) => a.offsetBytes - b.offsetBytes);
  }

  /** The blocks from `first` on, at most `limit`, that are alike: all in a hole, or none. */
  stretch(first: number, limit: number): { isHole: boolean; range: BlockRange } {
    const end = first + limit;
    const hole = this.#holeFrom(first);
    if (hole === undefined || hole.first >= end) return { isHole: false, range: { first, count: limit } };
    if (hole.first > first) return { isHole: false, range: { first, count: hole.first - first } };
    return { isHole: true, range: { first, count: Math.min(end, hole.first + hole.count) - first } };
  }

  /** The first hole of at least one whole block that ends after `block`. */
  #holeFrom(block: number): BlockRange | undefined {
    const offset = block * this.#blockBytes;
    let low = 0;
    for (let high = this.#unmapped.length; low < high;) {
      const middle = (low + high) >>> 1;
      const { offsetBytes, lengthBytes } = this.#unmapped[middle];
      if (offsetBytes + lengthBytes <= offset) low = middle + 1;
      else high = middle;
    }
    for (; low < this.#unmapped.length; low++) {
      const { offsetBytes, lengthBytes } = this.#unmapped[low];
      const first = Math.max(block, Math.ceil(offsetBytes / this.#blockBytes));
      const endBytes = offsetBytes + lengthBytes;
      // The disk's last block may be short; then it is whole where the disk ends.
      const end = endBytes >= this.#sizeBytes
        ? Math.ceil(this.#sizeBytes / this.#blockBytes)
        : Math.floor(endBytes / this.#blockBytes);
      if (first < end) return { first, count: end - first };
    }
    return undefined;
  }
}
