/**
 * When the map is made durable: at each flush of the user's, and by itself now and then, so that little has
 * to be fetched again after a power failure and the pages waiting in memory stay few.
 *
 * One checkpoint runs at a time. A flush that arrives meanwhile cannot share it (its snapshot is taken), and
 * shares the next one with every other flush that waits by then.
 */
import type { Clock } from "./clock.ts";
import type { LocalDisk } from "./local-disk.ts";
import type { ResidencyStore } from "./residency-store.ts";

const intervalMs = 5_000;
/**
 * Written data that brings on a checkpoint: the next flush of the user's waits for what is in the page cache by
 * then, so the sync must not fill it.
 */
const maxUnsyncedBytes = 64 * 1024 * 1024;
/** Changed pages that bring on a checkpoint: 2,048 pages are 8 MiB to copy. */
const maxDirtyPages = 2_048;

export class Checkpoints {
  readonly #store: ResidencyStore;
  readonly #disk: LocalDisk;
  readonly #clock: Clock;
  /** At first as well: the process before may have written what it did not live to sync. */
  #isDirty = true;
  #unsyncedBytes = 0;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #cancelTimer: (() => void) | undefined;
  #lastError: Error | undefined;
  #isClosed = false;

  constructor(store: ResidencyStore, disk: LocalDisk, clock: Clock) {
    this.#store = store;
    this.#disk = disk;
    this.#clock = clock;
    // A map that was opened may hold marks that were never made durable.
    if (store.dirtyPageCount > 0) this.dataWritten(0);
  }

  /** Why the last checkpoint failed; undefined if it did not. */
  get lastError(): Error | undefined {
    return this.#lastError;
  }

  /** The local disk (by so many bytes) or the map changed; called before the change is acknowledged. */
  dataWritten(bytes: number): void {
    this.#isDirty = true;
    this.#unsyncedBytes += bytes;
    if (this.#isClosed) return;
    const isMuch = this.#unsyncedBytes >= maxUnsyncedBytes || this.#store.dirtyPageCount >= maxDirtyPages;
    if (isMuch && this.#running === undefined) {
      this.flush().catch(() => {});
    }
    this.#cancelTimer ??= this.#clock.after(intervalMs, () => {
      this.#cancelTimer = undefined;
      this.flush().catch(() => {});
    });
  }

  /** Resolves when all that was written and marked before the call is durable. */
  flush(): Promise<void> {
    if (this.#running === undefined) return this.#start();
    this.#next ??= this.#running.catch(() => {}).then(() => {
      this.#next = undefined;
      return this.#start();
    });
    return this.#next;
  }

  /** The last checkpoint; then the map's files are closed in good order. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelTimer?.();
    await this.flush();
    await this.#store.close();
  }

  #start(): Promise<void> {
    if (!this.#isDirty && this.#store.dirtyPageCount === 0) return Promise.resolve();
    this.#isDirty = false;
    this.#unsyncedBytes = 0;
    this.#running = this.#store.checkpoint(() => this.#disk.sync()).then(
      () => {
        this.#lastError = undefined;
      },
      (error) => {
        this.#isDirty = true;
        this.#lastError = error;
        throw error;
      },
    ).finally(() => this.#running = undefined);
    return this.#running;
  }
}
