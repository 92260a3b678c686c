/**
 * The reading half of a volume: answers from the local disk what is resident, and from the source what is not.
 * See volume.ts for the whole.
 */
import { blocksOf, clip } from "./blocks.ts";
import type { Claims } from "./claims.ts";
import type { Clock } from "./clock.ts";
import { DissolvedError, type Fetch, type FetchQueue } from "./fetch-queue.ts";
import type { Holes } from "./holes.ts";
import type { LocalDisk } from "./local-disk.ts";
import type { Geometry } from "./map-layout.ts";
import type { BlockRange } from "./range-index.ts";
import { Readahead } from "./readahead.ts";
import { residency, type ResidencyMap } from "./residency.ts";
import type { Source } from "./source.ts";

export interface ReadingDependencies {
  readonly geometry: Geometry;
  readonly source: Source;
  readonly disk: LocalDisk;
  readonly map: ResidencyMap;
  readonly queue: FetchQueue;
  readonly claims: Claims;
  readonly holes: Holes;
  readonly clock: Clock;
  /** Small demand reads are rounded up to this; a multiple of the block. Default 64 KiB. */
  readonly demandBytes?: number;
  /** A read that waits longer for the source fails with EIO. Default: never. */
  readonly sourceTimeoutMs?: number;
}

const defaultDemandBytes = 64 * 1024;
/** One fetch at most. */
const maxFetchBytes = 1024 * 1024;

export class Reading {
  readonly #deps: ReadingDependencies;
  readonly #blockBytes: number;
  readonly #map: ResidencyMap;
  readonly #queue: FetchQueue;
  readonly #readahead = new Readahead();

  constructor(deps: ReadingDependencies) {
    this.#deps = deps;
    this.#blockBytes = deps.geometry.blockBytes;
    this.#map = deps.map;
    this.#queue = deps.queue;
  }

  /** Before the hand-off: the source as it is now; nothing is kept. */
  async passThrough(offset: number, length: number): Promise<Uint8Array> {
    // Whole blocks: the source may be read with O_DIRECT from a device whose sectors are larger than 512.
    const unit = this.#blockBytes;
    const from = Math.floor(offset / unit) * unit;
    const to = Math.min(this.#deps.geometry.sizeBytes, Math.ceil((offset + length) / unit) * unit);
    const buffer = Buffer.allocUnsafeSlow(to - from);
    await this.#withLimit(this.#deps.source.read("demand", from, buffer));
    return buffer.subarray(offset - from, offset - from + length);
  }

  /** After the hand-off: copy-on-read. */
  async read(offset: number, length: number): Promise<readonly Uint8Array[]> {
    const range = blocksOf(this.#blockBytes, offset, length);
    const ahead = this.#map.absentCount === 0 ? 0 : this.#readahead.onRead(offset, offset + length);
    if (this.#map.isResident(range.first, range.count)) return [await this.#readLocal(offset, length)];
    return await this.#readMixed(offset, length, ahead);
  }

  /** Resolves when every block of the range is resident. Rejects if one cannot be fetched or stored. */
  async makeResident(range: BlockRange, purpose: "demand" | "readahead"): Promise<void> {
    const map = this.#map;
    const most = Math.floor(maxFetchBytes / this.#blockBytes);
    const end = range.first + range.count;
    for (;;) {
      const at = map.find(residency.absent, range.first, end);
      if (at === -1) return;
      const count = Math.min(map.runLength(at, end - at), most);
      const claim = this.#deps.claims.lowest(at, count);
      if (claim !== undefined && claim.first <= at) {
        await this.#deps.claims.ended(claim);
        continue;
      }
      const fetch = this.#queue.lowest(at, count);
      const free = Math.min(claim?.first ?? Infinity, fetch?.first ?? Infinity, at + count) - at;
      const joined = fetch !== undefined && fetch.first <= at;
      const error = await this.#withLimit(
        joined ? fetch.settled : this.#bring({ first: at, count: free }, purpose),
      );
      if (error !== undefined && map.stateOf(at) === residency.absent && !joined) throw error;
    }
  }

  /** Begins with a range of absent, free blocks: what comes first of it is fetched, or filled if it is a hole. */
  async #bring(range: BlockRange, purpose: "demand" | "readahead"): Promise<Error | undefined> {
    const { isHole, range: piece } = this.#stretch(range);
    return await (isHole ? this.#queue.fillHole(piece) : this.#queue.start(piece, purpose))?.settled;
  }

  async #readLocal(offset: number, length: number): Promise<Uint8Array> {
    const buffer = Buffer.allocUnsafe(length);
    await this.#deps.disk.read(offset, buffer);
    return buffer;
  }

  /** A read that meets absent blocks. All fetches start before anything is waited for. */
  async #readMixed(offset: number, length: number, aheadBytes: number): Promise<readonly Uint8Array[]> {
    const map = this.#map;
    const range = blocksOf(this.#blockBytes, offset, length);
    const parts: Promise<readonly Uint8Array[]>[] = [];
    // A part may fail before they are waited for together.
    const add = (part: Promise<readonly Uint8Array[]>) => {
      part.catch(() => {});
      parts.push(part);
    };
    for (let at = range.first; at < range.first + range.count;) {
      const left = range.first + range.count - at;
      const run = map.runLength(at, left);
      const isAbsent = map.stateOf(at) === residency.absent;
      const step = isAbsent ? this.#readAbsent({ first: at, count: run }, offset, length) : undefined;
      const count = step?.count ?? run;
      const { from, to } = clip(this.#blockBytes, { first: at, count }, offset, length);
      add(step?.data ?? this.#readLocal(from, to - from).then((data) => [data]));
      at += count;
    }
    if (aheadBytes > 0) this.#readAhead(range.first + range.count, aheadBytes);
    return (await Promise.all(parts)).flat();
  }

  /** The first piece of a run of absent blocks, clipped to [offset, offset + length). */
  #readAbsent(
    run: BlockRange,
    offset: number,
    length: number,
  ): { count: number; data: Promise<readonly Uint8Array[]> } {
    const again = (count: number, ready: Promise<unknown>) => {
      const { from, to } = clip(this.#blockBytes, { first: run.first, count }, offset, length);
      return { count, data: ready.then(() => this.read(from, to - from)) };
    };
    const fetch = this.#queue.lowest(run.first, run.count);
    const claim = this.#deps.claims.lowest(run.first, run.count);
    if (claim !== undefined && claim.first <= run.first) {
      return again(
        Math.min(run.count, claim.first + claim.count - run.first),
        this.#deps.claims.ended(claim),
      );
    }
    if (fetch !== undefined && fetch.first <= run.first) {
      const count = Math.min(run.count, fetch.first + fetch.count - run.first);
      if (fetch.phase === "storing" && fetch.buffer === undefined) {
        return { count, data: this.#inHole({ first: run.first, count }, fetch, offset, length) };
      }
      return { count, data: this.#fetched(fetch, { first: run.first, count }, offset, length) };
    }
    const next = Math.min(claim?.first ?? Infinity, fetch?.first ?? Infinity, run.first + run.count);
    let count = Math.min(next - run.first, Math.floor(maxFetchBytes / this.#blockBytes));
    const stretch = this.#stretch({ first: run.first, count });
    count = stretch.range.count;
    if (stretch.isHole) {
      const filling = this.#queue.fillHole(stretch.range);
      return { count, data: this.#inHole(stretch.range, filling, offset, length) };
    }
    const wanted = { first: run.first, count };
    const started = this.#queue.start(this.#roundUp(wanted), "demand", count);
    return { count, data: this.#fetched(started, wanted, offset, length) };
  }

  /** A hole of the source, once it is filled here; where that fails, the zeroes are known all the same. */
  async #inHole(
    range: BlockRange,
    filling: Fetch | undefined,
    offset: number,
    length: number,
  ): Promise<readonly Uint8Array[]> {
    const error = await filling?.settled;
    const { from, to } = clip(this.#blockBytes, range, offset, length);
    const { first, count } = range;
    const isUntouched = this.#map.stateOf(first) === residency.absent &&
      this.#map.runLength(first, count) === count && this.#deps.claims.lowest(first, count) === undefined;
    if (error !== undefined && isUntouched) return [new Uint8Array(to - from)];
    return await this.read(from, to - from);
  }

  async #fetched(
    fetch: Fetch,
    range: BlockRange,
    offset: number,
    length: number,
  ): Promise<readonly Uint8Array[]> {
    const { from, to } = clip(this.#blockBytes, range, offset, length);
    let data: Uint8Array;
    try {
      data = await this.#withLimit(this.#queue.data(fetch, range));
    } catch (error) {
      if (error instanceof DissolvedError) return await this.#readMixed(from, to - from, 0);
      // Written here meanwhile, nothing of it is wanted from the source any more.
      if (this.#map.isResident(range.first, range.count)) return [await this.#readLocal(from, to - from)];
      throw error;
    }
    const start = range.first * this.#blockBytes;
    return [data.subarray(from - start, to - start)];
  }

  /** A small demand grows to its aligned window, as far as the blocks around it are absent and free. */
  #roundUp(wanted: BlockRange): BlockRange {
    const window = Math.max(1, (this.#deps.demandBytes ?? defaultDemandBytes) / this.#blockBytes);
    let first = wanted.first;
    let end = wanted.first + wanted.count;
    const from = Math.floor(first / window) * window;
    const to = Math.min(this.#map.blockCount, Math.ceil(end / window) * window);
    while (first > from && this.#isFree(first - 1)) first--;
    while (end < to && this.#isFree(end)) end++;
    return { first, count: end - first };
  }

  /** Whether the block is absent, nothing is done to it, and it would have to be fetched. */
  #isFree(block: number): boolean {
    return this.#map.stateOf(block) === residency.absent &&
      this.#queue.lowest(block, 1) === undefined &&
      this.#deps.claims.lowest(block, 1) === undefined &&
      !this.#stretch({ first: block, count: 1 }).isHole;
  }

  /** The first blocks of a range that are alike: a hole of the source, as far as that is known, or not. */
  #stretch(range: BlockRange): { isHole: boolean; range: BlockRange } {
    return this.#deps.holes.knows(range.first)
      ? this.#deps.holes.stretch(range.first, range.count)
      : { isHole: false, range };
  }

  #readAhead(first: number, bytes: number): void {
    const end = Math.min(this.#map.blockCount, first + Math.ceil(bytes / this.#blockBytes));
    for (const range of this.#freeRanges({ first, count: end - first })) {
      if (!this.#queue.hasRoom) return;
      this.#queue.start(range, "readahead", 0);
    }
  }

  /** What of the range is absent, free and no hole, in pieces of at most one fetch. */
  #freeRanges(range: BlockRange): BlockRange[] {
    const free: BlockRange[] = [];
    const most = Math.floor(maxFetchBytes / this.#blockBytes);
    const end = range.first + range.count;
    for (let at = range.first; at < end;) {
      at = this.#map.find(residency.absent, at, end);
      if (at === -1) break;
      const count = Math.min(this.#map.runLength(at, end - at), most);
      const busy = this.#queue.lowest(at, count) ?? this.#deps.claims.lowest(at, count);
      if (busy !== undefined) {
        at = busy.first + busy.count;
        continue;
      }
      const { isHole, range: piece } = this.#stretch({ first: at, count });
      if (!isHole) free.push(piece);
      at += piece.count;
    }
    return free;
  }

  #withLimit<T>(work: Promise<T>): Promise<T> {
    const limitMs = this.#deps.sourceTimeoutMs;
    if (limitMs === undefined) return work;
    return new Promise((resolve, reject) => {
      const cancel = this.#deps.clock.after(limitMs, () => {
        reject(Object.assign(new Error(`the source did not answer within ${limitMs} ms`), { code: "EIO" }));
      });
      work.then(resolve, reject).finally(cancel);
    });
  }
}
