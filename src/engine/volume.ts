/**
 * The copy-on-read volume: what the NBD server serves.
 *
 * | the block is | read                                   | write of the whole block | write of a part             |
 * |--------------|----------------------------------------|--------------------------|-----------------------------|
 * | (before the hand-off) | from the source, nothing kept | activates or waits       | activates or waits          |
 * | absent       | fetched, kept; joins a fetch in flight | local, never fetched     | fetches that block first    |
 * | in a fetch   | waits for it                           | local; the fetch drops it| waits for it                |
 * | claimed      | waits for the local write              | local                    | local, or as above          |
 * | resident     | local                                  | local                    | local                       |
 *
 * Every decision about a block (look at map, fetches and claims, then claim or start a fetch) is made in one
 * step of the event loop; what follows is only waiting. A write is marked after its data is on the local disk
 * and before it is acknowledged.
 */
import { allocationFlags, type BlockDevice, type Extent } from "../nbd-server/device.ts";
import { type Claim, Claims } from "./claims.ts";
import type { Clock } from "./clock.ts";
import { Checkpoints } from "./checkpoints.ts";
import { type Fetch, type FetchLimits, FetchQueue } from "./fetch-queue.ts";
import { Holes } from "./holes.ts";
import type { LocalDisk } from "./local-disk.ts";
import type { Geometry } from "./map-layout.ts";
import type { BlockRange } from "./range-index.ts";
import { Readahead } from "./readahead.ts";
import { planes, residency } from "./residency.ts";
import type { ResidencyStore } from "./residency-store.ts";
import type { Source } from "./source.ts";
import { Sync, type SyncLimits } from "./sync.ts";
import { TokenBucket } from "./token-bucket.ts";
import type { VerifyDependencies } from "./verify.ts";

export interface VolumeOptions {
  readonly geometry: Geometry;
  readonly source: Source;
  readonly disk: LocalDisk;
  readonly store: ResidencyStore;
  readonly clock: Clock;
  /** What a write before the hand-off does: activate the volume, or wait for `activate`. */
  readonly activation: "explicit" | "first-write";
  /** Small demand reads are rounded up to this; a multiple of the block. */
  readonly demandBytes?: number;
  /** A read that waits longer for the source fails with EIO. Default: never. */
  readonly sourceTimeoutMs?: number;
  /** Of the background sync; default no limit. */
  readonly bytesPerSecond?: number;
  readonly syncLimits?: SyncLimits;
  readonly fetchLimits?: FetchLimits;
  /** All is resident and durable. */
  onSynced?(): void;
  onActivated?(): void;
}

const defaultDemandBytes = 64 * 1024;
const finishRetryMs = 5_000;
/** One fetch at most. */
const maxFetchBytes = 1024 * 1024;

export class Volume implements BlockDevice {
  readonly sizeBytes: number;
  readonly preferredBlockBytes: number;
  readonly metaContexts = ["base:allocation", "dlsm:residency"];
  readonly sync: Sync;
  readonly claims = new Claims();
  readonly #options: VolumeOptions;
  readonly #store: ResidencyStore;
  readonly #disk: LocalDisk;
  readonly #queue: FetchQueue;
  readonly #holes: Holes;
  readonly #readahead = new Readahead();
  readonly #checkpoints: Checkpoints;
  readonly #blockBytes: number;
  #activating: Promise<void> | undefined;
  #wakeWriters: (() => void)[] = [];
  #isSynced = false;
  #lastError: Error | undefined;

  constructor(options: VolumeOptions) {
    const { geometry, source, disk, store, clock } = options;
    this.#options = options;
    this.#store = store;
    this.#disk = disk;
    this.#blockBytes = geometry.blockBytes;
    this.sizeBytes = geometry.sizeBytes;
    this.preferredBlockBytes = Math.max(4096, geometry.blockBytes);
    this.#checkpoints = new Checkpoints(store, disk, clock);
    this.#holes = new Holes(source, geometry);
    this.#queue = new FetchQueue({
      source,
      disk,
      store,
      claims: this.claims,
      geometry,
      limits: options.fetchLimits,
      onSettled: (fetch, storeError) => this.#onSettled(fetch, storeError),
    });
    this.sync = new Sync({
      map: store.map,
      queue: this.#queue,
      claims: this.claims,
      holes: this.#holes,
      bucket: new TokenBucket(options.bytesPerSecond ?? Infinity, clock.now()),
      clock,
      blockBytes: this.#blockBytes,
      limits: options.syncLimits,
      onDone: () => void this.#finishSync(),
    });
  }

  get activated(): boolean {
    return this.#store.activated;
  }

  /** Every block is resident and durable: the source is no longer needed. */
  get isSynced(): boolean {
    return this.#isSynced;
  }

  /** What a verification reads. */
  get verification(): VerifyDependencies {
    return { map: this.#store.map, claims: this.claims, disk: this.#disk, geometry: this.#options.geometry };
  }

  get lastError(): Error | undefined {
    return this.#checkpoints.lastError ?? this.#lastError ?? this.sync.lastError;
  }

  /** The hand-off: durable before the first block is kept. Any number of times. */
  activate(): Promise<void> {
    if (this.#store.activated) return Promise.resolve();
    this.#activating ??= this.#store.activate().then(
      () => {
        this.#options.onActivated?.();
        for (const wake of this.#wakeWriters.splice(0)) wake();
        this.sync.start();
      },
    ).finally(() => this.#activating = undefined);
    return this.#activating;
  }

  async read(offset: number, length: number): Promise<readonly Uint8Array[]> {
    if (!this.#store.activated) return [await this.#passThrough(offset, length)];
    const range = this.#blocks(offset, length);
    const ahead = this.#store.map.absentCount === 0 ? 0 : this.#readahead.onRead(offset, offset + length);
    const isResident = this.#store.map.isResident(range.first, range.count);
    const data = isResident
      ? [await this.#readLocal(offset, length)]
      : await this.#readMixed(offset, length, ahead);
    return data;
  }

  async write(offset: number, data: Uint8Array, fua: boolean): Promise<void> {
    await this.#writeWith(offset, data.length, () => this.#disk.write(offset, data));
    if (fua) await this.flush();
  }

  flush(): Promise<void> {
    return this.#store.activated ? this.#checkpoints.flush() : Promise.resolve();
  }

  async trim(offset: number, length: number, fua: boolean): Promise<void> {
    // Only whole blocks; the rest keeps its content, as a trim may.
    const { blockBytes, end } = { blockBytes: this.#blockBytes, end: offset + length };
    const from = Math.ceil(offset / blockBytes) * blockBytes;
    const to = end === this.sizeBytes ? end : Math.floor(end / blockBytes) * blockBytes;
    if (from < to) await this.#writeWith(from, to - from, () => this.#disk.zero(from, to - from, false));
    if (fua) await this.flush();
  }

  async writeZeroes(
    offset: number,
    length: number,
    { noHole, fastZero, fua }: { noHole: boolean; fastZero: boolean; fua: boolean },
  ): Promise<void> {
    if (fastZero && (noHole || !this.#disk.zeroesFast || this.#absentEdges(offset, length).length > 0)) {
      throw Object.assign(new Error("zeroing this is not quicker than writing"), { code: "ENOTSUP" });
    }
    await this.#writeWith(offset, length, () => this.#disk.zero(offset, length, noHole));
    if (fua) await this.flush();
  }

  async prefetch(offset: number, length: number): Promise<void> {
    if (!this.#store.activated) return;
    const range = this.#blocks(offset, length);
    await this.#makeResident(range, "readahead");
  }

  blockStatus(context: string, offset: number, length: number, maxExtents: number): Promise<Extent[]> {
    const extents: Extent[] = [];
    const end = offset + length;
    const isResidency = context === "dlsm:residency";
    for (let at = offset; at < end && extents.length <= maxExtents;) {
      const { first } = this.#blocks(at, 1);
      const state = this.#store.map.stateOf(first);
      const count = this.#store.map.runLength(
        first,
        Math.ceil((end - first * this.#blockBytes) / this.#blockBytes),
      );
      let stop = Math.min(end, (first + count) * this.#blockBytes);
      let flags: number = state;
      if (!isResidency) {
        flags = 0;
        if (state !== residency.absent) {
          const piece = this.#disk.extentAt(at, stop);
          stop = piece.end;
          flags = piece.isHole ? allocationFlags.hole | allocationFlags.zero : 0;
        }
      }
      const last = extents.at(-1);
      if (last?.flags === flags) last.lengthBytes += stop - at;
      else extents.push({ lengthBytes: stop - at, flags });
      at = stop;
    }
    return Promise.resolve(extents.slice(0, maxExtents));
  }

  /** Goes on after a pause, or after an error was mended. */
  resume(): void {
    this.#lastError = undefined;
    if (this.#store.activated) this.sync.start();
  }

  /** Stops the sync, makes everything durable and closes the map in good order. */
  async close(): Promise<void> {
    this.sync.close();
    while (this.#queue.size > 0 || this.claims.size > 0) {
      const fetch = this.#queue.lowest(0, this.#store.map.blockCount);
      const claim = this.claims.lowest(0, this.#store.map.blockCount);
      await (fetch !== undefined ? fetch.settled : this.claims.ended(claim!));
    }
    await this.#checkpoints.close();
    await this.#disk.close();
  }

  // ---- reading

  /** Before the hand-off: the source as it is now; nothing is kept. */
  async #passThrough(offset: number, length: number): Promise<Uint8Array> {
    // Whole blocks: the source may be read with O_DIRECT from a device whose sectors are larger than 512.
    const unit = this.#blockBytes;
    const from = Math.floor(offset / unit) * unit;
    const to = Math.min(this.sizeBytes, Math.ceil((offset + length) / unit) * unit);
    const buffer = Buffer.allocUnsafeSlow(to - from);
    await this.#withLimit(this.#options.source.read("demand", from, buffer));
    return buffer.subarray(offset - from, offset - from + length);
  }

  async #readLocal(offset: number, length: number): Promise<Uint8Array> {
    const buffer = Buffer.allocUnsafe(length);
    await this.#disk.read(offset, buffer);
    return buffer;
  }

  /** A read that meets absent blocks. All fetches start before anything is waited for. */
  async #readMixed(offset: number, length: number, aheadBytes: number): Promise<readonly Uint8Array[]> {
    const { map } = this.#store;
    const range = this.#blocks(offset, length);
    const parts: Promise<readonly Uint8Array[]>[] = [];
    for (let at = range.first; at < range.first + range.count;) {
      const left = range.first + range.count - at;
      const run = map.runLength(at, left);
      const isAbsent = map.stateOf(at) === residency.absent;
      const step = isAbsent ? this.#readAbsent({ first: at, count: run }, offset, length) : undefined;
      const count = step?.count ?? run;
      const { from, to } = this.#clip({ first: at, count }, offset, length);
      parts.push(step?.data ?? this.#readLocal(from, to - from).then((data) => [data]));
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
      const { from, to } = this.#clip({ first: run.first, count }, offset, length);
      return { count, data: ready.then(() => this.read(from, to - from)) };
    };
    const fetch = this.#queue.lowest(run.first, run.count);
    const claim = this.claims.lowest(run.first, run.count);
    if (claim !== undefined && claim.first <= run.first) {
      return again(Math.min(run.count, claim.first + claim.count - run.first), this.claims.ended(claim));
    }
    if (fetch !== undefined && fetch.first <= run.first) {
      const count = Math.min(run.count, fetch.first + fetch.count - run.first);
      if (fetch.phase === "storing" && fetch.buffer === undefined) return again(count, fetch.settled);
      return { count, data: this.#fetched(fetch, { first: run.first, count }, offset, length) };
    }
    const next = Math.min(claim?.first ?? Infinity, fetch?.first ?? Infinity, run.first + run.count);
    let count = Math.min(next - run.first, Math.floor(maxFetchBytes / this.#blockBytes));
    if (this.#holes.knows(run.first)) {
      const stretch = this.#holes.stretch(run.first, count);
      count = stretch.range.count;
      if (stretch.isHole) {
        return again(count, this.#queue.fillHole(stretch.range)?.settled ?? Promise.resolve());
      }
    }
    const wanted = { first: run.first, count };
    const started = this.#queue.start(this.#roundUp(wanted), "demand", count);
    return { count, data: this.#fetched(started, wanted, offset, length) };
  }

  async #fetched(
    fetch: Fetch,
    range: BlockRange,
    offset: number,
    length: number,
  ): Promise<readonly Uint8Array[]> {
    const data = await this.#withLimit(this.#queue.data(fetch, range));
    const { from, to } = this.#clip(range, offset, length);
    const start = range.first * this.#blockBytes;
    return [data.subarray(from - start, to - start)];
  }

  /** A small demand grows to its aligned window, as far as the blocks around it are absent and free. */
  #roundUp(wanted: BlockRange): BlockRange {
    const window = Math.max(1, (this.#options.demandBytes ?? defaultDemandBytes) / this.#blockBytes);
    let first = wanted.first;
    let end = wanted.first + wanted.count;
    const from = Math.floor(first / window) * window;
    const to = Math.min(this.#store.map.blockCount, Math.ceil(end / window) * window);
    while (first > from && this.#isFree(first - 1)) first--;
    while (end < to && this.#isFree(end)) end++;
    return { first, count: end - first };
  }

  #isFree(block: number): boolean {
    return this.#store.map.stateOf(block) === residency.absent &&
      this.#queue.lowest(block, 1) === undefined &&
      this.claims.lowest(block, 1) === undefined;
  }

  #readAhead(first: number, bytes: number): void {
    const end = Math.min(this.#store.map.blockCount, first + Math.ceil(bytes / this.#blockBytes));
    for (const range of this.#freeRanges({ first, count: end - first })) {
      if (!this.#queue.hasRoom) return;
      this.#queue.start(range, "readahead", 0);
    }
  }

  /** What of the range is absent and free, in pieces of at most one fetch. */
  #freeRanges(range: BlockRange): BlockRange[] {
    const free: BlockRange[] = [];
    const most = Math.floor(maxFetchBytes / this.#blockBytes);
    const end = range.first + range.count;
    for (let at = range.first; at < end;) {
      at = this.#store.map.find(residency.absent, at, end);
      if (at === -1) break;
      const count = Math.min(this.#store.map.runLength(at, end - at), most);
      const busy = this.#queue.lowest(at, count) ?? this.claims.lowest(at, count);
      if (busy !== undefined) {
        at = busy.first + busy.count;
        continue;
      }
      free.push({ first: at, count });
      at += count;
    }
    return free;
  }

  // ---- writing

  /** Runs a local write of [offset, offset + length) under a claim, and marks its blocks. */
  async #writeWith(offset: number, length: number, write: () => Promise<void>): Promise<void> {
    if (!this.#store.activated) await this.#waitForActivation();
    const range = this.#blocks(offset, length);
    for (;;) {
      const edges = this.#absentEdges(offset, length);
      if (edges.length > 0) {
        await Promise.all(edges.map((block) => this.#makeResident({ first: block, count: 1 }, "demand")));
        continue;
      }
      const storing = this.#queue.storing(range.first, range.count);
      if (storing === undefined) break;
      await storing.settled;
    }
    const claim = this.claims.add(range.first, range.count);
    try {
      await write();
      this.#checkpoints.dataWritten(length);
      this.#markWritten(claim);
    } catch (error) {
      this.#lastError = error as Error;
      throw error;
    } finally {
      this.claims.release(claim);
      if (!this.#isSynced) this.sync.poke();
    }
  }

  #markWritten(claim: Claim): void {
    this.#store.mark(claim.first, claim.count, planes.written);
    for (const range of claim.crossed) this.#store.mark(range.first, range.count, planes.crossed);
  }

  /** The first and last block of the range, where it covers only a part of them and they are absent. */
  #absentEdges(offset: number, length: number): number[] {
    const { first, count } = this.#blocks(offset, length);
    const last = first + count - 1;
    const end = offset + length;
    const { map } = this.#store;
    const headIsPart = offset % this.#blockBytes !== 0;
    const tailIsPart = end % this.#blockBytes !== 0 && end !== this.sizeBytes;
    const edges: number[] = [];
    if ((headIsPart || (tailIsPart && first === last)) && map.stateOf(first) === residency.absent) {
      edges.push(first);
    }
    if (tailIsPart && last !== first && map.stateOf(last) === residency.absent) edges.push(last);
    return edges;
  }

  /** Resolves when every block of the range is resident. Rejects if one cannot be fetched or stored. */
  async #makeResident(range: BlockRange, purpose: "demand" | "readahead"): Promise<void> {
    const { map } = this.#store;
    const most = Math.floor(maxFetchBytes / this.#blockBytes);
    const end = range.first + range.count;
    for (;;) {
      const at = map.find(residency.absent, range.first, end);
      if (at === -1) return;
      const count = Math.min(map.runLength(at, end - at), most);
      const claim = this.claims.lowest(at, count);
      if (claim !== undefined && claim.first <= at) {
        await this.claims.ended(claim);
        continue;
      }
      const fetch = this.#queue.lowest(at, count);
      const free = Math.min(claim?.first ?? Infinity, fetch?.first ?? Infinity, at + count) - at;
      const joined = fetch !== undefined && fetch.first <= at;
      const error = await this.#withLimit(
        (joined ? fetch : this.#queue.start({ first: at, count: free }, purpose)).settled,
      );
      if (error !== undefined && map.stateOf(at) === residency.absent && !joined) throw error;
    }
  }

  async #waitForActivation(): Promise<void> {
    if (this.#options.activation === "first-write") return await this.activate();
    await new Promise<void>((resolve) => this.#wakeWriters.push(resolve));
  }

  // ---- helpers

  #blocks(offset: number, length: number): BlockRange {
    const first = Math.floor(offset / this.#blockBytes);
    return { first, count: Math.ceil((offset + length) / this.#blockBytes) - first };
  }

  /** The bytes of a range of blocks that lie in [offset, offset + length). */
  #clip(range: BlockRange, offset: number, length: number): { from: number; to: number } {
    const from = Math.max(offset, range.first * this.#blockBytes);
    return { from, to: Math.min(offset + length, (range.first + range.count) * this.#blockBytes) };
  }

  #withLimit<T>(work: Promise<T>): Promise<T> {
    const limitMs = this.#options.sourceTimeoutMs;
    if (limitMs === undefined) return work;
    return new Promise((resolve, reject) => {
      const cancel = this.#options.clock.after(limitMs, () => {
        reject(Object.assign(new Error(`the source did not answer within ${limitMs} ms`), { code: "EIO" }));
      });
      work.then(resolve, reject).finally(cancel);
    });
  }

  #onSettled(fetch: Fetch, storeError: Error | undefined): void {
    this.#checkpoints.dataWritten(fetch.buffer?.length ?? 0);
    if (storeError !== undefined) this.sync.stop(storeError);
    else this.sync.poke();
  }

  async #finishSync(): Promise<void> {
    try {
      await this.#checkpoints.flush();
    } catch {
      // The error is kept as the checkpoints' last one; the next one may go through.
      this.#options.clock.after(finishRetryMs, () => void this.#finishSync());
      return;
    }
    this.#isSynced = true;
    this.#options.onSynced?.();
  }
}
