/**
 * Brings blocks from the source and keeps them: what is in flight, who waits for it, and when it is stored.
 *
 * A fetch covers adjacent blocks that were absent and not in flight when it began, so no block is ever in
 * flight twice; whoever wants one meanwhile joins the fetch.
 *
 * | phase   | the data is             | a reader gets      | a writer of whole blocks              |
 * |---------|-------------------------|--------------------|---------------------------------------|
 * | queued  | not asked for           | waits              | goes ahead; the fetch dissolves       |
 * | reading | on its way              | waits              | goes ahead; its blocks are not stored |
 * | storing | here, being written     | the fetched bytes  | waits for the local write to end      |
 *
 * Readers are answered when the source command ended with GOOD status, before the data is stored. Blocks
 * that were written here meanwhile are left alone (invariant 5); the rest is written to the local disk and
 * only then marked.
 */
import { type BlockRange, RangeIndex } from "./range-index.ts";
import { type Claims, intersection, unclaimed } from "./claims.ts";
import { bytesOf } from "./blocks.ts";
import { BufferPool } from "../lib/buffer-pool.ts";
import type { LocalDisk } from "./local-disk.ts";
import type { Geometry } from "./map-layout.ts";
import { planes, residency } from "./residency.ts";
import type { ResidencyStore } from "./residency-store.ts";
import type { Source } from "./source.ts";

/** Why blocks are fetched; decides the lane and the counter. */
export type Purpose = "demand" | "readahead" | "sync";

export interface Fetch extends BlockRange {
  readonly purpose: Purpose;
  /** Of a demand fetch: blocks that a request waits for; the others came along. */
  readonly wantedBlocks: number;
  phase: "queued" | "reading" | "storing";
  /** Undefined for a hole, which is zeroed instead of fetched. */
  buffer: Uint8Array | undefined;
  readonly waiters: Waiter[];
  /** A reader has a part of the buffer. */
  isShared: boolean;
  /** Resolves when the blocks are stored, or with the error that prevented it. */
  readonly settled: Promise<Error | undefined>;
  settle(error: Error | undefined): void;
}

interface Waiter extends BlockRange {
  resolve(data: Uint8Array): void;
  reject(error: Error): void;
}

export interface FetchLimits {
  /** Demand and read-ahead fetches in flight at most; more of them wait in a queue. */
  readonly demandFetches: number;
}

export const defaultFetchLimits: FetchLimits = { demandFetches: 48 };

/** As much as the sync has in flight, and demands for as much again. */
const pooledBytes = 16 * 1024 * 1024;

export interface FetchDependencies {
  readonly source: Source;
  readonly disk: LocalDisk;
  readonly store: ResidencyStore;
  readonly claims: Claims;
  readonly geometry: Geometry;
  readonly limits?: FetchLimits;
  /** A fetch ended (`storeError`: the local disk refused to keep the data). */
  onSettled(fetch: Fetch, storeError: Error | undefined): void;
}

/** The fetch was given up before anything was asked for. */
export class DissolvedError extends Error {}

export class FetchQueue {
  readonly #deps: FetchDependencies;
  readonly #limits: FetchLimits;
  readonly #active = new RangeIndex<Fetch>();
  readonly #queue: Fetch[] = [];
  readonly #pool = new BufferPool(pooledBytes);
  #demandInFlight = 0;

  constructor(deps: FetchDependencies) {
    this.#deps = deps;
    this.#limits = deps.limits ?? defaultFetchLimits;
  }

  get size(): number {
    return this.#active.size;
  }

  /** Whether a read-ahead may start: never while demands wait. */
  get hasRoom(): boolean {
    return this.#demandInFlight < this.#limits.demandFetches / 2;
  }

  /** The fetch with the lowest start among those that overlap the range. */
  lowest(first: number, count: number): Fetch | undefined {
    return this.#active.lowest(first, count);
  }

  /** A fetch of the range that is being stored: a writer must wait for it. */
  storing(first: number, count: number): Fetch | undefined {
    return this.#active.lowest(first, count, (fetch) => fetch.phase === "storing");
  }

  /**
   * Starts to fetch a range of absent blocks that nothing is being done to.
   * @param wantedBlocks how many of them a request waits for
   */
  start(range: BlockRange, purpose: Purpose, wantedBlocks = range.count): Fetch {
    const fetch = this.#newFetch(range, purpose, wantedBlocks);
    if (purpose === "sync") {
      void this.#run(fetch);
    } else if (this.#demandInFlight < this.#limits.demandFetches) {
      this.#demandInFlight++;
      void this.#run(fetch);
    } else {
      this.#queue.push(fetch);
    }
    return fetch;
  }

  /**
   * Makes absent blocks that are a hole of the source resident: nothing crosses the network. Where the local
   * disk is known to be zero this is done when the call returns (undefined); else the blocks are zeroed first.
   */
  fillHole(range: BlockRange): Fetch | undefined {
    const { store, disk } = this.#deps;
    const { offset, length } = bytesOf(this.#deps.geometry, range);
    let failure: Error | undefined;
    if (store.localZero) {
      failure = this.#markHole(range, length);
      if (failure === undefined) return undefined;
    }
    const fetch = this.#newFetch(range, "sync", 0);
    fetch.phase = "storing";
    const zeroed = failure === undefined ? disk.zero(offset, length, false) : Promise.reject(failure);
    void zeroed.then(() => this.#markHole(range, length), (error: Error) => error)
      .then((error) => this.#settle(fetch, error, error));
    return fetch;
  }

  /** The fetched bytes of blocks [first, first + count), all of them in the fetch. */
  data(fetch: Fetch, range: BlockRange): Promise<Uint8Array> {
    fetch.isShared = true;
    if (fetch.phase === "storing") return Promise.resolve(this.#slice(fetch, range));
    return new Promise((resolve, reject) => fetch.waiters.push({ ...range, resolve, reject }));
  }

  #newFetch(range: BlockRange, purpose: Purpose, wantedBlocks: number): Fetch {
    const { promise, resolve } = Promise.withResolvers<Error | undefined>();
    const fetch: Fetch = {
      first: range.first,
      count: range.count,
      purpose,
      wantedBlocks,
      phase: "queued",
      buffer: undefined,
      waiters: [],
      isShared: false,
      settled: promise,
      settle: resolve,
    };
    this.#active.add(fetch);
    return fetch;
  }

  async #run(fetch: Fetch): Promise<void> {
    const { source } = this.#deps;
    const { offset, length } = bytesOf(this.#deps.geometry, fetch);
    fetch.phase = "reading";
    const buffer = this.#pool.take(length);
    try {
      await source.read(fetch.purpose === "sync" ? "sync" : "demand", offset, buffer);
    } catch (error) {
      for (const waiter of fetch.waiters) waiter.reject(error as Error);
      this.#leaveLane(fetch);
      this.#settle(fetch, error as Error, undefined);
      return;
    }
    // The place in the lane is kept until the data is stored, so that a slow local disk bounds the buffers.
    fetch.buffer = buffer;
    fetch.phase = "storing";
    this.#countBytes(fetch, length);
    for (const waiter of fetch.waiters) waiter.resolve(this.#slice(fetch, waiter));
    const storeError = await this.#keep(fetch);
    if (!fetch.isShared) this.#pool.give(buffer);
    this.#leaveLane(fetch);
    this.#settle(fetch, storeError, storeError);
  }

  /** Stores what is still absent and not being written; the error if that failed. Ends with all its writes. */
  async #keep(fetch: Fetch): Promise<Error | undefined> {
    const { store, claims, disk } = this.#deps;
    const here: BlockRange[] = [];
    const parts: BlockRange[] = [];
    for (const run of store.map.runs(fetch.first, fetch.count)) {
      if (run.state === residency.absent) parts.push(...unclaimed(run, claims));
      else here.push(run);
    }
    for (const claim of claims.overlapping(fetch)) claim.crossed.push(intersection(claim, fetch)!);
    const results = await Promise.allSettled(
      parts.map((part) => disk.write(bytesOf(this.#deps.geometry, part).offset, this.#slice(fetch, part))),
    );
    let failure: Error | undefined;
    results.forEach((result, at) => {
      if (result.status === "fulfilled") here.push(parts[at]);
      else failure = result.reason;
    });
    try {
      for (const range of here) store.mark(range.first, range.count, planes.crossed);
      if (failure !== undefined) store.counters.refetchedBytes += bytesOf(this.#deps.geometry, fetch).length;
      store.saveCounters();
    } catch (error) {
      failure ??= error as Error;
    }
    return failure;
  }

  #leaveLane(fetch: Fetch): void {
    if (fetch.purpose === "sync") return;
    for (;;) {
      const next = this.#queue.shift();
      if (next === undefined) {
        this.#demandInFlight--;
        return;
      }
      if (this.#isUntouched(next)) return void this.#run(next);
      this.#dissolve(next);
    }
  }

  #isUntouched({ first, count }: Fetch): boolean {
    const { store: { map }, claims } = this.#deps;
    return map.stateOf(first) === residency.absent && map.runLength(first, count) === count &&
      claims.lowest(first, count) === undefined;
  }

  /** Blocks of it were written here while it waited: they must not cross any more. Whoever wants it looks anew. */
  #dissolve(fetch: Fetch): void {
    for (const waiter of fetch.waiters) waiter.reject(new DissolvedError());
    this.#settle(fetch, undefined, undefined);
  }

  #settle(fetch: Fetch, error: Error | undefined, storeError: Error | undefined): void {
    this.#active.delete(fetch);
    fetch.settle(error);
    this.#deps.onSettled(fetch, storeError);
  }

  #markHole(range: BlockRange, lengthBytes: number): Error | undefined {
    const { store } = this.#deps;
    try {
      store.mark(range.first, range.count, planes.crossed);
      store.counters.holeBytes += lengthBytes;
      store.saveCounters();
      return undefined;
    } catch (error) {
      return error as Error;
    }
  }

  #countBytes(fetch: Fetch, length: number): void {
    const { counters } = this.#deps.store;
    if (fetch.purpose === "sync") {
      counters.syncBytes += length;
    } else {
      const wantedBlocks = fetch.purpose === "demand" ? fetch.wantedBlocks : 0;
      const wanted = Math.min(length, wantedBlocks * this.#deps.geometry.blockBytes);
      counters.demandBytes += wanted;
      counters.readaheadBytes += length - wanted;
    }
  }

  #slice(fetch: Fetch, range: BlockRange): Uint8Array {
    const { offset, length } = bytesOf(this.#deps.geometry, range);
    const start = offset - fetch.first * this.#deps.geometry.blockBytes;
    return fetch.buffer!.subarray(start, start + length);
  }
}
