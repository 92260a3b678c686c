/**
 * The residency map: where each block of a volume is.
 *
 * Two bits a block: `crossed` (it came from the source, or is known to be a hole there) and `written` (it was
 * written, zeroed or trimmed here). Neither: *absent*. Crossed only: *fetched*. Written, crossed or not:
 * *written*. Bits are only ever set, never cleared, so that a map page that was torn by a power failure is a
 * valid older map, and the two bits together tell how much was overwritten before it ever had to move.
 *
 * A map page covers 16,384 blocks (64 MiB of disk at 4 KiB a block) and holds two bit planes of 2 KiB each.
 * Most of a disk is uniform at any time; a page exists in memory only where its blocks differ. What is
 * uniform is one byte in the index:
 *
 * | index bit | meaning                                        |
 * |-----------|------------------------------------------------|
 * | hasPage   | the page's bits count as well                  |
 * | crossed   | every block of the page has its crossed bit    |
 * | written   | every block of the page has its written bit    |
 *
 * A block's bits are the OR of its index bits and its page's bits. 64 TiB at 4 KiB: 1 MiB of index, and 4 KiB
 * for each page that is mixed.
 *
 * Pure: `PageSource` and `MapSink` connect it to storage (residency-store.ts).
 */

export const pageBlocks = 16_384;
/** Length of a page: both planes. */
export const pageBytes = pageBlocks / 4;
const planeWords = pageBlocks / 32;
export const pageWords = planeWords * 2;

export const planes = { crossed: 0, written: 1 } as const;
export type Plane = (typeof planes)[keyof typeof planes];

export const indexBits = { hasPage: 1, crossed: 2, written: 4 } as const;
const uniformBit = [indexBits.crossed, indexBits.written] as const;
export const validIndexBits = 7;

/** What a block is, as `dlsm:residency` reports it. */
export const residency = { absent: 0, fetched: 1, written: 2 } as const;
export type Residency = (typeof residency)[keyof typeof residency];

/** Told of every change, after it was made in memory and before `mark` returns. */
export interface MapSink {
  /** Words [fromWord, toWord) of the page changed. `isNew`: the page did not exist before. */
  pageChanged(page: number, words: Uint32Array, fromWord: number, toWord: number, isNew: boolean): void;
  /** The index bytes of pages [fromPage, toPage) changed, or their pages did. */
  indexChanged(fromPage: number, toPage: number): void;
}

/** Reads a stored page's words on first use; called only for pages whose index says `hasPage`. */
export type PageSource = (page: number) => Uint32Array;

/** A page in memory: both planes, and how many bits are set in each. */
interface Page {
  readonly words: Uint32Array;
  readonly setBits: [crossed: number, written: number];
}

export interface Run {
  state: Residency;
  first: number;
  count: number;
}

export class ResidencyMap {
  readonly blockCount: number;
  readonly pageCount: number;
  /** One byte a page, see above. Owned by the map; the store reads it. */
  readonly index: Uint8Array;
  /** Blocks with the crossed bit, with the written bit, and with both. */
  crossedCount = 0;
  writtenCount = 0;
  bothCount = 0;
  readonly #pages = new Map<number, Page>();
  readonly #sink: MapSink;
  readonly #pageSource: PageSource;

  /**
   * @param blockCount blocks of the disk, the last one possibly short; 1 to 2^44
   * @param index the stored index, one byte a page; its pages are read when they are first needed
   */
  constructor(blockCount: number, sink: MapSink, pageSource: PageSource, index?: Uint8Array) {
    this.blockCount = blockCount;
    this.pageCount = Math.ceil(blockCount / pageBlocks);
    this.index = index ?? new Uint8Array(this.pageCount);
    this.#sink = sink;
    this.#pageSource = pageSource;
  }

  get residentCount(): number {
    return this.crossedCount + this.writtenCount - this.bothCount;
  }

  get absentCount(): number {
    return this.blockCount - this.residentCount;
  }

  /** Blocks written here that never crossed the network. */
  get overwrittenCount(): number {
    return this.writtenCount - this.bothCount;
  }

  /** Counts a page of a map that was opened from storage; once for each page whose index byte is not 0. */
  recount(page: number): void {
    const blocks = this.#blocksOf(page);
    const bits = this.index[page];
    let crossed = bits & indexBits.crossed ? blocks : 0;
    let written = bits & indexBits.written ? blocks : 0;
    let both = crossed !== 0 && written !== 0 ? blocks : 0;
    if (bits & indexBits.hasPage) {
      crossed = written = both = 0;
      for (let word = 0; word * 32 < blocks; word++) {
        const inUse = blocks - word * 32 >= 32 ? 0xffffffff : (1 << (blocks - word * 32)) - 1;
        const c = this.#word(page, planes.crossed, word) & inUse;
        const w = this.#word(page, planes.written, word) & inUse;
        crossed += popCount(c);
        written += popCount(w);
        both += popCount(c & w);
      }
    }
    this.crossedCount += crossed;
    this.writtenCount += written;
    this.bothCount += both;
  }

  stateOf(block: number): Residency {
    const page = Math.floor(block / pageBlocks);
    const word = (block % pageBlocks) >>> 5;
    const bit = 1 << (block & 31);
    if (this.#word(page, planes.written, word) & bit) return residency.written;
    return this.#word(page, planes.crossed, word) & bit ? residency.fetched : residency.absent;
  }

  /** Whether the block came over the network (or is a hole of the source), written since or not. */
  hasCrossed(block: number): boolean {
    const word = (block % pageBlocks) >>> 5;
    return (this.#word(Math.floor(block / pageBlocks), planes.crossed, word) & (1 << (block & 31))) !== 0;
  }

  /** How many blocks from `first` on, at most `limit`, are in the state of the first one. */
  runLength(first: number, limit: number): number {
    const end = Math.min(first + limit, this.blockCount);
    const state = this.stateOf(first);
    let block = first;
    while (block < end) {
      const page = Math.floor(block / pageBlocks);
      const pageEnd = Math.min((page + 1) * pageBlocks, end);
      if (!(this.index[page] & indexBits.hasPage)) {
        if (uniformState(this.index[page]) !== state) break;
        block = pageEnd;
        continue;
      }
      const stop = this.#firstOther(page, block, pageEnd, state);
      block = stop;
      if (stop < pageEnd) break;
    }
    return block - first;
  }

  /** Runs of equal state that cover [first, first + count). */
  *runs(first: number, count: number): Generator<Run> {
    const end = Math.min(first + count, this.blockCount);
    for (let block = first; block < end;) {
      const length = this.runLength(block, end - block);
      yield { state: this.stateOf(block), first: block, count: length };
      block += length;
    }
  }

  /** The first block from `first` on that is in `state`; -1 if there is none before `end`. */
  find(state: Residency, first: number, end = this.blockCount): number {
    for (let block = first; block < end;) {
      if (this.stateOf(block) === state) return block;
      block += this.runLength(block, end - block);
    }
    return -1;
  }

  /** True if no block of the range is absent. */
  isResident(first: number, count: number): boolean {
    return this.find(residency.absent, first, first + count) === -1;
  }

  /** Sets the plane's bit for blocks [first, first + count) and tells the sink what changed. */
  mark(first: number, count: number, plane: Plane): void {
    const end = first + count;
    let indexFrom = -1;
    let indexTo = -1;
    for (let block = first; block < end;) {
      const page = Math.floor(block / pageBlocks);
      const pageStart = page * pageBlocks;
      const pageEnd = Math.min(pageStart + pageBlocks, this.blockCount);
      const stop = Math.min(pageEnd, end);
      const changed = block === pageStart && stop === pageEnd
        ? this.#markWhole(page, plane)
        : this.#markPart(page, block - pageStart, stop - pageStart, plane);
      if (changed) {
        if (indexFrom === -1) indexFrom = page;
        indexTo = page + 1;
      }
      block = stop;
    }
    if (indexFrom !== -1) this.#sink.indexChanged(indexFrom, indexTo);
  }

  /** The words of a page that exists (`hasPage`). */
  pageWords(page: number): Uint32Array {
    return this.#page(page).words;
  }

  /** Pages held in memory; what the map costs beyond its index is this many times `pageBytes`. */
  get loadedPages(): number {
    return this.#pages.size;
  }

  #page(number: number): Page {
    let page = this.#pages.get(number);
    if (page === undefined) {
      const words = this.#pageSource(number);
      page = { words, setBits: [countWords(words, planes.crossed), countWords(words, planes.written)] };
      this.#pages.set(number, page);
    }
    return page;
  }

  #blocksOf(page: number): number {
    return Math.min(pageBlocks, this.blockCount - page * pageBlocks);
  }

  #word(page: number, plane: Plane, word: number): number {
    const bits = this.index[page];
    if (bits & uniformBit[plane]) return -1;
    return bits & indexBits.hasPage ? this.#page(page).words[plane * planeWords + word] : 0;
  }

  /** The first block in [block, end) of a page with words whose state is not `state`; `end` if none. */
  #firstOther(page: number, block: number, end: number, state: Residency): number {
    const pageStart = page * pageBlocks;
    let at = block - pageStart;
    const stop = end - pageStart;
    while (at < stop) {
      const word = at >>> 5;
      const crossed = this.#word(page, planes.crossed, word);
      const written = this.#word(page, planes.written, word);
      const same = state === residency.written
        ? written
        : state === residency.fetched
        ? crossed & ~written
        : ~(crossed | written);
      const others = ~same >>> (at & 31);
      if (others !== 0) return Math.min(pageStart + at + trailingZeros(others), end);
      at = (word + 1) * 32;
    }
    return end;
  }

  #markWhole(page: number, plane: Plane): boolean {
    const bit = uniformBit[plane];
    if (this.index[page] & bit) return false;
    const blocks = this.#blocksOf(page);
    const other = plane === planes.crossed ? planes.written : planes.crossed;
    let had = 0;
    let hadBoth = 0;
    let others = this.index[page] & uniformBit[other] ? blocks : 0;
    if (this.index[page] & indexBits.hasPage) {
      const { words, setBits } = this.#page(page);
      had = setBits[plane];
      if (others === 0) others = setBits[other];
      for (let word = 0; word < planeWords; word++) {
        hadBoth += popCount(words[plane * planeWords + word] & this.#word(page, other, word));
      }
    }
    this.#count(plane, blocks - had, others - hadBoth);
    this.index[page] |= bit;
    this.#dropIfRedundant(page);
    return true;
  }

  #markPart(page: number, from: number, to: number, plane: Plane): boolean {
    if (this.index[page] & uniformBit[plane]) return false;
    const isNew = !(this.index[page] & indexBits.hasPage);
    if (isNew) {
      this.#pages.set(page, this.#newPage(page));
      this.index[page] |= indexBits.hasPage;
    }
    const { words, setBits } = this.#page(page);
    const base = plane * planeWords;
    const other = plane === planes.crossed ? planes.written : planes.crossed;
    let added = 0;
    let addedBoth = 0;
    const lastWord = (to - 1) >>> 5;
    for (let word = from >>> 5; word <= lastWord; word++) {
      const low = word === from >>> 5 ? from & 31 : 0;
      const high = word === lastWord ? ((to - 1) & 31) + 1 : 32;
      const mask = (high === 32 ? -1 : (1 << high) - 1) & (-1 << low);
      const fresh = mask & ~words[base + word];
      if (fresh === 0) continue;
      words[base + word] |= fresh;
      added += popCount(fresh);
      addedBoth += popCount(fresh & this.#word(page, other, word));
    }
    if (added === 0) return false;
    setBits[plane] += added;
    this.#count(plane, added, addedBoth);
    if (setBits[plane] === this.#blocksOf(page)) this.index[page] |= uniformBit[plane];
    if (!this.#dropIfRedundant(page)) {
      this.#sink.pageChanged(page, words, base + (from >>> 5), base + lastWord + 1, isNew);
    }
    return true;
  }

  /**
   * A page that says again what the index says of it: its place in storage may hold words of an earlier page
   * and be overwritten before the index is, and no bit may be lost even then.
   */
  #newPage(page: number): Page {
    const words = new Uint32Array(pageWords);
    const setBits: Page["setBits"] = [0, 0];
    const blocks = this.#blocksOf(page);
    for (const plane of [planes.crossed, planes.written]) {
      if (!(this.index[page] & uniformBit[plane])) continue;
      const fullWords = blocks >>> 5;
      words.fill(-1, plane * planeWords, plane * planeWords + fullWords);
      if (blocks & 31) words[plane * planeWords + fullWords] = (1 << (blocks & 31)) - 1;
      setBits[plane] = blocks;
    }
    return { words, setBits };
  }

  /** Lets a page go whose words say nothing that the index does not say. */
  #dropIfRedundant(page: number): boolean {
    if (!(this.index[page] & indexBits.hasPage)) return true;
    const { setBits } = this.#page(page);
    if (!(this.index[page] & indexBits.crossed) && setBits[planes.crossed] > 0) return false;
    if (!(this.index[page] & indexBits.written) && setBits[planes.written] > 0) return false;
    this.index[page] &= ~indexBits.hasPage;
    this.#pages.delete(page);
    return true;
  }

  #count(plane: Plane, added: number, addedBoth: number): void {
    if (plane === planes.crossed) this.crossedCount += added;
    else this.writtenCount += added;
    this.bothCount += addedBoth;
  }
}

function uniformState(bits: number): Residency {
  if (bits & indexBits.written) return residency.written;
  return bits & indexBits.crossed ? residency.fetched : residency.absent;
}

function countWords(words: Uint32Array, plane: Plane): number {
  let count = 0;
  for (let word = plane * planeWords; word < (plane + 1) * planeWords; word++) {
    if (words[word] !== 0) count += popCount(words[word]);
  }
  return count;
}

function popCount(word: number): number {
  let n = word - ((word >>> 1) & 0x55555555);
  n = (n & 0x33333333) + ((n >>> 2) & 0x33333333);
  return (((n + (n >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
}

function trailingZeros(word: number): number {
  return 31 - Math.clz32(word & -word);
}
