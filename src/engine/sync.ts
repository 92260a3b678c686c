/**
 * The background sync: brings every absent block, in order, as fast as it is allowed to.
 *
 * | state   | meaning                                                                   |
 * |---------|---------------------------------------------------------------------------|
 * | idle    | not started: before the hand-off nothing may be kept                      |
 * | running | fetching, or waiting for the source, the rate limit or blocks in use      |
 * | paused  | by the user                                                               |
 * | stopped | the local disk refused to keep data; goes on when told to (after a mend)  |
 * | done    | no block is absent                                                        |
 *
 * It passes over what others are fetching or writing, and makes another pass while anything is absent. What
 * the source cannot read is left for a later pass, after a delay and in small pieces.
 */
import { bytesOf } from "./blocks.ts";
import type { Clock } from "./clock.ts";
import type { Claims } from "./claims.ts";
import type { Fetch, FetchQueue } from "./fetch-queue.ts";
import type { Holes } from "./holes.ts";
import type { Geometry } from "./map-layout.ts";
import { residency, type ResidencyMap } from "./residency.ts";
import type { BlockRange } from "./range-index.ts";
import type { TokenBucket } from "./token-bucket.ts";

export type SyncState = "idle" | "running" | "paused" | "stopped" | "done";

export interface SyncLimits {
  /** One fetch at most, in bytes; a multiple of the block. */
  readonly chunkBytes: number;
  /** In flight at most, as fetches and in bytes. */
  readonly fetches: number;
  readonly inFlightBytes: number;
  /** Until blocks that the source could not read are tried again. */
  readonly retryMs: number;
}

export const defaultSyncLimits: SyncLimits = {
  chunkBytes: 1024 * 1024,
  fetches: 16,
  inFlightBytes: 8 * 1024 * 1024,
  retryMs: 5_000,
};

export interface SyncDependencies {
  readonly map: ResidencyMap;
  readonly queue: FetchQueue;
  readonly claims: Claims;
  readonly holes: Holes;
  readonly bucket: TokenBucket;
  readonly clock: Clock;
  readonly geometry: Geometry;
  readonly limits?: SyncLimits;
  /** Every block is resident (not yet durable). */
  onDone(): void;
}

/** In pieces of this size on a pass after one that met errors. */
const carefulBytes = 64 * 1024;

export class Sync {
  readonly #deps: SyncDependencies;
  readonly #limits: SyncLimits;
  #state: SyncState = "idle";
  #cursor = 0;
  #fetches = 0;
  #bytes = 0;
  #isLearning = false;
  #isCareful = false;
  #hadErrors = false;
  #cancelWait: (() => void) | undefined;
  #lastError: Error | undefined;

  constructor(deps: SyncDependencies) {
    this.#deps = deps;
    this.#limits = deps.limits ?? defaultSyncLimits;
  }

  get state(): SyncState {
    return this.#state;
  }

  /** The last thing that went wrong, until a pass without errors. */
  get lastError(): Error | undefined {
    return this.#lastError;
  }

  /** Starts, or goes on after a pause or a stop. */
  start(): void {
    if (this.#state === "done" || this.#state === "running") return;
    this.#lastError = undefined;
    this.#hadErrors = false;
    this.#state = "running";
    this.#pump();
  }

  pause(): void {
    if (this.#state === "done") return;
    this.#state = "paused";
    this.#stopWaiting();
  }

  /** Lifts a pause without starting: before the hand-off. */
  unpause(): void {
    if (this.#state === "paused") this.#state = "idle";
  }

  /** The limit; Infinity for none. */
  get bytesPerSecond(): number {
    return this.#deps.bucket.bytesPerSecond;
  }

  setRate(bytesPerSecond: number): void {
    this.#deps.bucket.setRate(bytesPerSecond, this.#deps.clock.now());
    this.#stopWaiting();
    this.#pump();
  }

  /** Something changed that the sync may wait for: a fetch settled, or a claim was released. */
  poke(): void {
    this.#pump();
  }

  /** Nothing more is started; what is in flight settles by itself. */
  close(): void {
    if (this.#state !== "done") this.#state = "idle";
    this.#stopWaiting();
  }

  #pump(): void {
    const { map, queue, holes, bucket, clock } = this.#deps;
    while (this.#state === "running") {
      // Others may bring or write the last blocks while the sync waits, for its rate for instance.
      if (map.absentCount === 0) return this.#finish();
      if (this.#cancelWait !== undefined || this.#isLearning) return;
      if (this.#fetches >= this.#limits.fetches || this.#bytes >= this.#limits.inFlightBytes) return;
      const free = this.#nextFree();
      if (free === undefined) {
        if (!this.#nextPass()) return;
        continue;
      }
      if (!holes.knows(free.first)) return void this.#learn(free.first);
      const { isHole, range } = holes.stretch(free.first, free.count);
      if (isHole) {
        this.#cursor = range.first + range.count;
        this.#follow(queue.fillHole(range), 0);
        continue;
      }
      const part = this.#chunk(range);
      const bytes = bytesOf(this.#deps.geometry, part).length;
      const waitMs = bucket.take(bytes, clock.now());
      if (waitMs > 0) return this.#waitFor(waitMs);
      this.#cursor = part.first + part.count;
      this.#follow(queue.start(part, "sync"), bytes);
    }
  }

  /** The next absent blocks that nobody is fetching or writing; undefined at the end of the pass. */
  #nextFree(): BlockRange | undefined {
    const { map, queue, claims } = this.#deps;
    for (;;) {
      const first = map.find(residency.absent, this.#cursor);
      if (first === -1) return undefined;
      const count = map.runLength(first, holeScanBlocks);
      const busy = lower(queue.lowest(first, count), claims.lowest(first, count));
      if (busy === undefined) return { first, count };
      if (busy.first > first) return { first, count: busy.first - first };
      this.#cursor = busy.first + busy.count;
    }
  }

  /** At the end of a pass: true to begin another now; false if something has to happen before. */
  #nextPass(): boolean {
    const { map, queue, claims, clock } = this.#deps;
    this.#cursor = map.blockCount;
    if (this.#fetches > 0) return false;
    if (this.#hadErrors) {
      this.#cancelWait = clock.after(this.#limits.retryMs, () => {
        this.#cancelWait = undefined;
        this.#hadErrors = false;
        this.#isCareful = true;
        this.#cursor = 0;
        this.#pump();
      });
      return false;
    }
    this.#cursor = 0;
    this.#isCareful = false;
    // Others hold all that is absent; one of them will poke when it is through.
    return queue.size === 0 && claims.size === 0;
  }

  #chunk(range: BlockRange): BlockRange {
    const { bucket, geometry: { blockBytes } } = this.#deps;
    // At a low rate smaller pieces keep the flow even and the burst short.
    const byRate = Math.max(carefulBytes, bucket.bytesPerSecond / 10);
    const bytes = Math.min(this.#isCareful ? carefulBytes : this.#limits.chunkBytes, byRate);
    const blocks = Math.max(1, Math.floor(bytes / blockBytes));
    // Pieces end where multiples of their size do, so that a pass settles into aligned requests.
    const aligned = blocks - range.first % blocks;
    return { first: range.first, count: Math.min(range.count, aligned) };
  }

  /** Counts what was started as in flight until it settles; nothing was, if the work is done already. */
  #follow(fetch: Fetch | undefined, bytes: number): void {
    if (fetch === undefined) return;
    this.#fetches++;
    this.#bytes += bytes;
    void fetch.settled.then((error) => {
      this.#fetches--;
      this.#bytes -= bytes;
      if (error !== undefined) {
        this.#lastError = error;
        this.#hadErrors = true;
      }
      this.#pump();
    });
  }

  /** A fetch of anyone's could not be stored: the sync would only fetch what cannot be kept. */
  stop(error: Error): void {
    this.#lastError = error;
    if (this.#state === "running") this.#state = "stopped";
    this.#hadErrors = false;
    this.#cursor = 0;
    this.#stopWaiting();
  }

  async #learn(block: number): Promise<void> {
    this.#isLearning = true;
    await this.#deps.holes.learn(block);
    this.#isLearning = false;
    this.#pump();
  }

  #waitFor(delayMs: number): void {
    this.#cancelWait = this.#deps.clock.after(delayMs, () => {
      this.#cancelWait = undefined;
      this.#pump();
    });
  }

  #stopWaiting(): void {
    this.#cancelWait?.();
    this.#cancelWait = undefined;
  }

  #finish(): void {
    this.#stopWaiting();
    this.#state = "done";
    this.#lastError = undefined;
    this.#deps.onDone();
  }
}

/** Looked through at a time for what is free; bounds the work of one step on a large empty disk. */
const holeScanBlocks = 16_384 * 64;

function lower(a: BlockRange | undefined, b: BlockRange | undefined): BlockRange | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return a.first <= b.first ? a : b;
}
