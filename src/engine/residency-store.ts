/**
 * Keeps the residency map twice, as invariant 6 asks:
 *
 * - the **live map**, in the run folder (memory that outlives the process, not the power; tied to the boot):
 *   updated before `mark` returns, and so before a write is acknowledged. If only the engine dies, it has
 *   every acknowledged write.
 * - the **durable map**, in the state folder: follows at each checkpoint, after the data it speaks of.
 *
 * A checkpoint copies the pages that changed, *then* syncs the data, then writes and syncs the copies. A bit
 * that is set while the data is being synced is not in the copy; it goes with the next checkpoint. What a
 * power failure leaves of a checkpoint is a subset of true bits, because bits are only ever set.
 *
 * In the live file's index two more bits a page say what the durable file is short of:
 * `dirty` (the page changed since the last checkpoint) and `durableOnly` (the page's words are so far only in
 * the durable file; that is so after a reboot, until the page changes).
 */
import { randomBytes } from "node:crypto";
import {
  blockCountOf,
  type Counters,
  emptyCounters,
  encodeHeader,
  type Geometry,
  headerBytes,
  indexOffset,
  isPageSound,
  type MapHeader,
  newestHeader,
  pageCountOf,
  pageOffset,
  slotBytes,
} from "./map-layout.ts";
import { liveMapCounts, MapError, type MapIdentity, type StoredMap } from "./map-choice.ts";
import type { MapFile } from "./map-file.ts";
import {
  indexBits,
  type MapSink,
  pageBlocks,
  pageWords,
  type Plane,
  ResidencyMap,
  validIndexBits,
} from "./residency.ts";

const dirty = 0x80;
const durableOnly = 0x40;

export { LiveMapError, MapError, SyncFailedError } from "./map-choice.ts";

export interface StoreFiles {
  readonly durable: MapFile;
  readonly live: MapFile;
}

export class ResidencyStore implements MapSink {
  readonly map: ResidencyMap;
  readonly #files: StoreFiles;
  readonly #geometry: Geometry;
  readonly #header: MapHeader;
  readonly #flags: Uint8Array;
  #dirtyPages: number[] = [];
  /** Pages of which the live map may lack something: it could not be written. */
  readonly #behind = new Set<number>();
  /** The live file's index as it stands there. */
  readonly #liveIndex: Uint8Array;
  #isActivated: boolean;
  /** The durable file's index as it is sure to stand there. */
  readonly #durableIndex: Uint8Array;
  readonly #sequences = { durable: 0, live: 0 };

  private constructor(files: StoreFiles, header: MapHeader, index?: Uint8Array, flags?: Uint8Array) {
    this.#files = files;
    this.#geometry = header;
    this.#header = header;
    this.#isActivated = header.activated;
    this.#flags = flags ?? new Uint8Array(pageCountOf(header));
    this.#liveIndex = new Uint8Array(pageCountOf(header));
    this.#durableIndex = new Uint8Array(pageCountOf(header));
    this.map = new ResidencyMap(blockCountOf(header), this, (page) => this.#readPage(page), index);
    for (let page = 0; page < this.map.pageCount; page++) {
      if (this.map.index[page] !== 0) this.map.recount(page);
      if (this.#flags[page] & dirty) this.#dirtyPages.push(page);
    }
  }

  /** A new volume's maps; both files must be empty. Durable when it resolves. */
  static async create(
    files: StoreFiles,
    identity: Geometry & { readonly volumeId: string; readonly bootId: string; readonly localZero: boolean },
  ): Promise<ResidencyStore> {
    const store = new ResidencyStore(files, {
      ...identity,
      sequence: 0,
      activated: false,
      clean: false,
      missesWrites: false,
      syncFailed: false,
      generation: newGeneration(),
      counters: emptyCounters(),
    });
    await store.#writeHeaders();
    return store;
  }

  /**
   * The maps of a volume that existed before. The live map counts if it was written in this boot; else the
   * durable one. Without the live map of an engine that was killed in this boot, what was acknowledged and not
   * flushed would be forgotten: `LiveMapError`, unless `mayLoseUnflushed`. So it would if a sync of the local disk
   * failed in this boot: `SyncFailedError`. Throws `MapError` if the durable map is damaged or of another volume.
   */
  static async open(
    files: StoreFiles,
    identity: MapIdentity,
    mayLoseUnflushed = false,
  ): Promise<ResidencyStore> {
    const [durable, live] = [storedMap(files.durable, identity), storedMap(files.live, identity)];
    const isLive = liveMapCounts(durable, live, identity, mayLoseUnflushed);
    const durableHeader = durable.header!;
    const header = isLive ? live.header! : durableHeader;
    header.activated ||= durableHeader.activated;
    header.localZero &&= header.clean;
    header.missesWrites ||= durableHeader.missesWrites ||
      (!isLive && durableHeader.activated && !durableHeader.clean);
    header.clean = false;
    header.syncFailed = false;
    header.bootId = identity.bootId;
    if (!isLive) header.generation = newGeneration();

    const { index } = isLive ? live : durable;
    const flags = index.map((bits) => bits & (dirty | durableOnly));
    for (let page = 0; page < index.length; page++) {
      index[page] &= ~(dirty | durableOnly);
      if (!isLive && index[page] & indexBits.hasPage) flags[page] = durableOnly;
    }
    if (!isLive) files.live.clear();
    if (index.some((bits) => bits & ~validIndexBits)) throw new MapError("its index is damaged");
    const store = new ResidencyStore(files, header, index, flags);
    store.#sequences.durable = durableHeader.sequence;
    store.#sequences.live = live.header?.sequence ?? 0;
    store.#writeLiveIndex(0, index.length);
    // The header that was read may be of a process that was killed before it synced it; the other slot may be
    // overwritten only when this one is sure to stay.
    await files.durable.sync();
    files.durable.read(indexOffset, store.#durableIndex);
    // The live file first: were the durable one first, a kill in between would leave it without its live map.
    store.#writeHeader("live");
    await store.#writeHeaders();
    return store;
  }

  /** Whether the hand-off has happened, durably. */
  get activated(): boolean {
    return this.#isActivated;
  }

  /** Whether the local disk reads as zeroes where the map says absent. */
  get localZero(): boolean {
    return this.#header.localZero;
  }

  /** A write failed half-way: the local disk may hold what the map does not know of. */
  forgetLocalZero(): void {
    this.#header.localZero = false;
  }

  get counters(): Counters {
    return this.#header.counters;
  }

  /** Pages that changed since the last checkpoint began. */
  get dirtyPageCount(): number {
    return this.#dirtyPages.length;
  }

  /** Marks blocks; when it returns the mark outlives the process. Throws if the live map cannot be written. */
  mark(first: number, count: number, plane: Plane): void {
    // A mark that is in memory only would make the next one of its blocks do nothing.
    if (this.#behind.size > 0) this.catchUp();
    try {
      this.map.mark(first, count, plane);
    } catch (error) {
      const lastPage = Math.floor((first + count - 1) / pageBlocks);
      for (let page = Math.floor(first / pageBlocks); page <= lastPage; page++) {
        this.#behind.add(page);
        this.#markDirty(page);
      }
      throw error;
    }
  }

  /** Brings the live map up to what is in memory, where that failed before. Throws if it fails again. */
  catchUp(): void {
    for (const page of this.#behind) {
      if (this.map.index[page] & indexBits.hasPage) {
        this.pageChanged(page, this.map.pageWords(page), 0, pageWords, true);
      }
      this.#liveIndex[page] = ~this.map.index[page];
      this.indexChanged(page, page + 1);
      this.#behind.delete(page);
    }
  }

  /** Puts the counters where they outlive the process. */
  saveCounters(): void {
    this.#writeHeader("live");
  }

  /** Resolves when it is durable that the hand-off has happened. If it rejects, neither file says so. */
  async activate(): Promise<void> {
    this.#header.activated = true;
    try {
      await this.#writeHeaders();
      this.#isActivated = true;
    } catch (error) {
      // One of the files may have it already, and would be believed by the next engine.
      this.#header.activated = false;
      for (const file of ["durable", "live"] as const) this.#tryToWriteHeader(file);
      await this.#files.durable.sync().catch(() => {});
      throw error;
    }
  }

  /**
   * Makes durable all that was marked before the call. `syncData` must make durable the data of the local
   * disk. One checkpoint at a time.
   */
  async checkpoint(syncData: () => Promise<void>): Promise<void> {
    if (this.#behind.size > 0) this.catchUp();
    const pages = this.#dirtyPages.sort((a, b) => a - b);
    this.#dirtyPages = [];
    const copies = pages.map((page) => {
      this.#flags[page] &= ~dirty;
      const bits = this.map.index[page];
      return { page, bits, words: bits & indexBits.hasPage ? this.map.pageWords(page).slice() : undefined };
    });
    try {
      await syncData().catch((error) => {
        this.#noteFailedSync();
        throw error;
      });
      if (pages.length === 0) return;
      const durable = this.#files.durable;
      for (const { page, words } of copies) {
        if (words !== undefined) await durable.write(pageOffset(this.#geometry, page), bytesOf(words));
      }
      // Where the index does not count a page yet, its place may hold words of before a power failure, which
      // must be gone for good before the index counts them.
      const isFirst = (page: number, bits: number) => bits & indexBits.hasPage & ~this.#durableIndex[page];
      if (copies.some(({ page, bits }) => isFirst(page, bits) !== 0)) await durable.sync();
      for (const [from, to] of adjacent(pages)) {
        const bytes = Uint8Array.from(copies.slice(from, to), (copy) => copy.bits);
        await durable.write(indexOffset + pages[from], bytes);
      }
      this.#writeHeader("durable");
      await durable.sync();
      this.#sequences.durable++;
      for (const { page, bits } of copies) this.#durableIndex[page] = bits;
    } catch (error) {
      for (const page of pages) this.#markDirty(page);
      throw error;
    }
    for (const [from, to] of adjacent(pages)) this.#writeLiveIndex(pages[from], pages[to - 1] + 1);
  }

  /** After a last checkpoint, with nothing under way: says so in both files, and closes them. */
  async close(): Promise<void> {
    this.#header.clean = this.#dirtyPages.length === 0;
    await this.#writeHeaders();
    this.#files.durable.close();
    this.#files.live.close();
  }

  pageChanged(page: number, words: Uint32Array, fromWord: number, toWord: number, isNew: boolean): void {
    this.#announceChange(page);
    const whole = isNew || (this.#flags[page] & durableOnly) !== 0;
    const part = whole ? words : words.subarray(fromWord, toWord);
    this.#files.live.writeNow(pageOffset(this.#geometry, page) + (whole ? 0 : fromWord * 4), bytesOf(part));
    this.#flags[page] &= ~durableOnly;
  }

  indexChanged(fromPage: number, toPage: number): void {
    for (let page = fromPage; page < toPage; page++) this.#markDirty(page);
    this.#writeLiveIndex(fromPage, toPage);
  }

  /**
   * The live file says that the page is dirty before it is: the process may be killed between the two, and the
   * next one would take the page for durable.
   */
  #announceChange(page: number): void {
    const bits = this.#liveIndex[page];
    if (bits & dirty) return;
    this.#files.live.writeNow(indexOffset + page, Uint8Array.of(bits | dirty));
    this.#liveIndex[page] = bits | dirty;
  }

  #markDirty(page: number): void {
    if (this.#flags[page] & dirty) return;
    this.#flags[page] |= dirty;
    this.#dirtyPages.push(page);
  }

  #readPage(page: number): Uint32Array {
    const words = new Uint32Array(pageWords);
    const file = this.#flags[page] & durableOnly ? this.#files.durable : this.#files.live;
    file.read(pageOffset(this.#geometry, page), bytesOf(words));
    const blocks = this.map.blockCount - page * pageBlocks;
    if (!isPageSound(words, this.map.index[page], blocks)) throw new MapError(`its page ${page} is damaged`);
    return words;
  }

  #writeLiveIndex(fromPage: number, toPage: number): void {
    let from = toPage;
    let to = fromPage;
    for (let page = fromPage; page < toPage; page++) {
      if (this.#liveIndex[page] === (this.map.index[page] | this.#flags[page])) continue;
      if (from === toPage) from = page;
      to = page + 1;
    }
    if (from >= to) return;
    const bytes = new Uint8Array(to - from);
    for (let page = from; page < to; page++) bytes[page - from] = this.map.index[page] | this.#flags[page];
    this.#files.live.writeNow(indexOffset + from, bytes);
    this.#liveIndex.set(bytes, from);
  }

  async #writeHeaders(): Promise<void> {
    this.#writeHeader("durable");
    await this.#files.durable.sync();
    this.#sequences.durable++;
    this.#writeHeader("live");
  }

  /** For the next engine: this one's disk stays failed by itself. */
  #noteFailedSync(): void {
    if (this.#header.syncFailed) return;
    this.#header.syncFailed = true;
    this.#tryToWriteHeader("live");
  }

  #tryToWriteHeader(file: keyof StoreFiles): void {
    try {
      this.#writeHeader(file);
    } catch {
      // The disk is full or broken: then what was there before stands.
    }
  }

  /** In the durable file the slots change only after a sync, so that one of them is whole at any time. */
  #writeHeader(file: keyof StoreFiles): void {
    this.#header.sequence = this.#sequences[file] + 1;
    this.#files[file].writeNow((this.#header.sequence % 2) * slotBytes, encodeHeader(this.#header));
    if (file === "live") this.#sequences.live++;
  }
}

/** Says which live map belongs to which durable one. */
function newGeneration(): string {
  return randomBytes(12).toString("hex");
}

function storedMap(file: MapFile, geometry: Geometry): StoredMap {
  const index = new Uint8Array(pageCountOf(geometry));
  file.read(indexOffset, index);
  return { header: readHeader(file), index };
}

/** The header of a map file; undefined if neither slot holds a valid one. */
export function readHeader(file: MapFile): MapHeader | undefined {
  return newestHeader([0, slotBytes].map((offset) => {
    const slot = new Uint8Array(headerBytes);
    file.read(offset, slot);
    return slot;
  }));
}

/** Index ranges [from, to) of runs of consecutive numbers in a sorted array. */
function* adjacent(numbers: readonly number[]): Generator<[from: number, to: number]> {
  for (let from = 0; from < numbers.length;) {
    let to = from + 1;
    while (to < numbers.length && numbers[to] === numbers[to - 1] + 1) to++;
    yield [from, to];
    from = to;
  }
}

function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}
