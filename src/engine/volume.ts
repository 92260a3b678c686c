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
import { PreconditionError } from "../lib/errors.ts";
import type { BlockDevice, Extent } from "../nbd-server/device.ts";
import { blocksOf } from "./blocks.ts";
import { blockStatus, metaContexts } from "./block-status.ts";
import { Claims } from "./claims.ts";
import type { Clock } from "./clock.ts";
import { Checkpoints } from "./checkpoints.ts";
import { type Fetch, type FetchLimits, FetchQueue } from "./fetch-queue.ts";
import { Holes } from "./holes.ts";
import type { LocalDisk } from "./local-disk.ts";
import type { Geometry } from "./map-layout.ts";
import { Reading } from "./reading.ts";
import type { ResidencyStore } from "./residency-store.ts";
import type { Source } from "./source.ts";
import { Sync, type SyncLimits } from "./sync.ts";
import { TokenBucket } from "./token-bucket.ts";
import type { VerifyDependencies } from "./verify.ts";
import { Writing } from "./writing.ts";

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

const finishRetryMs = 5_000;

export class Volume implements BlockDevice {
  readonly sizeBytes: number;
  readonly preferredBlockBytes: number;
  readonly metaContexts = metaContexts;
  readonly sync: Sync;
  readonly claims = new Claims();
  readonly #options: VolumeOptions;
  readonly #store: ResidencyStore;
  readonly #disk: LocalDisk;
  readonly #queue: FetchQueue;
  readonly #reading: Reading;
  readonly #writing: Writing;
  readonly #checkpoints: Checkpoints;
  readonly #blockBytes: number;
  #activating: Promise<void> | undefined;
  #isActivationRefused = false;
  readonly #wakeWriters = new Set<() => void>();
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
    const holes = new Holes(source, geometry);
    this.#queue = new FetchQueue({
      source,
      disk,
      store,
      claims: this.claims,
      geometry,
      limits: options.fetchLimits,
      onSettled: (fetch, storeError) => this.#onSettled(fetch, storeError),
    });
    const { claims } = this;
    const shared = {
      geometry,
      store,
      map: store.map,
      disk,
      queue: this.#queue,
      claims,
      holes,
      source,
      clock,
    };
    const { demandBytes, sourceTimeoutMs } = options;
    this.#reading = new Reading({ ...shared, demandBytes, sourceTimeoutMs });
    this.#writing = new Writing({ ...shared, checkpoints: this.#checkpoints, reading: this.#reading });
    this.sync = new Sync({
      map: store.map,
      queue: this.#queue,
      claims: this.claims,
      holes,
      bucket: new TokenBucket(options.bytesPerSecond ?? Infinity, clock.now()),
      clock,
      geometry,
      limits: options.syncLimits,
      onDone: () => void this.#finishSync(),
    });
  }

  get activated(): boolean {
    return this.#store.activated;
  }

  /** The hand-off is being written down. */
  get isActivating(): boolean {
    return this.#activating !== undefined;
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

  /**
   * The hand-off: durable before the first block is kept. Any number of times. Rejects with PreconditionError
   * after `refuseActivation`.
   */
  activate(): Promise<void> {
    if (this.#store.activated) return Promise.resolve();
    if (this.#isActivationRefused) {
      return Promise.reject(new PreconditionError("the volume is being given up: it cannot be handed over"));
    }
    this.#activating ??= this.#store.activate().then(
      () => {
        this.#options.onActivated?.();
        for (const wake of this.#wakeWriters) wake();
        this.#wakeWriters.clear();
        // A pause that was asked for before the hand-off holds until it is lifted.
        if (this.sync.state !== "paused") this.sync.start();
      },
    ).finally(() => this.#activating = undefined);
    return this.#activating;
  }

  /**
   * From this turn of the event loop on there is no hand-off: whoever would make it by writing waits. False, and
   * nothing is changed, if it has happened, or is being written down.
   */
  refuseActivation(): boolean {
    if (this.#store.activated || this.#activating !== undefined) return false;
    this.#isActivationRefused = true;
    return true;
  }

  async read(offset: number, length: number): Promise<readonly Uint8Array[]> {
    if (!this.#store.activated) {
      try {
        return [await this.#reading.passThrough(offset, length)];
      } catch (error) {
        // After the hand-off the source may be gone, and all be here.
        if (!this.#store.activated) throw error;
      }
    }
    return await this.#reading.read(offset, length);
  }

  async write(offset: number, data: Uint8Array, fua: boolean, client?: AbortSignal): Promise<void> {
    await this.#write(offset, data.length, () => this.#disk.write(offset, data), client);
    if (fua) await this.flush();
  }

  flush(): Promise<void> {
    return this.#store.activated ? this.#checkpoints.flush() : Promise.resolve();
  }

  async trim(offset: number, length: number, fua: boolean, client?: AbortSignal): Promise<void> {
    // Only whole blocks; the rest keeps its content, as a trim may.
    const { blockBytes, end } = { blockBytes: this.#blockBytes, end: offset + length };
    const from = Math.ceil(offset / blockBytes) * blockBytes;
    const to = end === this.sizeBytes ? end : Math.floor(end / blockBytes) * blockBytes;
    if (from < to) await this.#write(from, to - from, () => this.#disk.zero(from, to - from, false), client);
    if (fua) await this.flush();
  }

  async writeZeroes(
    offset: number,
    length: number,
    { noHole, fastZero, fua }: { noHole: boolean; fastZero: boolean; fua: boolean },
    client?: AbortSignal,
  ): Promise<void> {
    if (
      fastZero && (noHole || !this.#disk.zeroesFast || this.#writing.absentEdges(offset, length).length > 0)
    ) {
      throw Object.assign(new Error("zeroing this is not quicker than writing"), { code: "ENOTSUP" });
    }
    await this.#write(offset, length, () => this.#disk.zero(offset, length, noHole), client);
    if (fua) await this.flush();
  }

  async prefetch(offset: number, length: number): Promise<void> {
    if (!this.#store.activated) return;
    await this.#reading.makeResident(blocksOf(this.#blockBytes, offset, length), "readahead");
  }

  blockStatus(context: string, offset: number, length: number, maxExtents: number): Promise<Extent[]> {
    return Promise.resolve(blockStatus(this.verification, context, offset, length, maxExtents));
  }

  /** Goes on after a pause, or after an error was mended. */
  resume(): void {
    this.#lastError = undefined;
    if (this.#store.activated) this.sync.start();
    else this.sync.unpause();
  }

  /** Stops the sync, makes everything durable and closes the map in good order. */
  async close(): Promise<void> {
    // A write that came after the map is closed in good order would be one that the map knows nothing of.
    this.#writing.close();
    this.#isActivationRefused = true;
    await this.#activating?.catch(() => {});
    this.sync.close();
    while (this.#queue.size > 0 || this.claims.size > 0) {
      const fetch = this.#queue.lowest(0, this.#store.map.blockCount);
      const claim = this.claims.lowest(0, this.#store.map.blockCount);
      await (fetch !== undefined ? fetch.settled : this.claims.ended(claim!));
    }
    await this.#checkpoints.close();
    await this.#disk.close();
  }

  /** A local operation on the bytes, once the volume is active. */
  async #write(
    offset: number,
    length: number,
    write: () => Promise<void>,
    client?: AbortSignal,
  ): Promise<void> {
    if (!this.#store.activated) await this.#waitForActivation(client);
    try {
      await this.#writing.run(offset, length, write);
    } catch (error) {
      this.#lastError = error as Error;
      throw error;
    } finally {
      if (!this.#isSynced) this.sync.poke();
    }
  }

  /** Rejects when the client is gone: the write of somebody who gave up must not come after the hand-off. */
  async #waitForActivation(client?: AbortSignal): Promise<void> {
    if (this.#options.activation === "first-write" && !this.#isActivationRefused) {
      return await this.activate();
    }
    await new Promise<void>((resolve, reject) => {
      const giveUp = () => {
        this.#wakeWriters.delete(wake);
        reject(Object.assign(new Error("the client is gone"), { code: "ECANCELED" }));
      };
      const wake = () => {
        client?.removeEventListener("abort", giveUp);
        resolve();
      };
      if (client?.aborted) return giveUp();
      this.#wakeWriters.add(wake);
      client?.addEventListener("abort", giveUp, { once: true });
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
      this.#store.catchUp();
      this.#lastError = undefined;
    } catch (error) {
      // Told until it goes through.
      this.#lastError = error as Error;
      this.#options.clock.after(finishRetryMs, () => void this.#finishSync());
      return;
    }
    this.#isSynced = true;
    this.#options.onSynced?.();
  }
}
