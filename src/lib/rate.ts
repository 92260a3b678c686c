/** A rate out of a growing count, and the time that is left. Pure: the caller brings the clock. */

/** What happened this long ago counts for 1/e of what happens now. */
const defaultMemoryMs = 5000;

/**
 * An exponential moving average that is weighted by time, so that it does not matter how often, or how
 * regularly, it is fed.
 */
export class RateEstimator {
  readonly #memoryMs: number;
  #last: { readonly timeMs: number; readonly bytes: number } | undefined;
  /** Weighted bytes and weighted time; their quotient is unbiased from the first interval on. */
  #weightedBytes = 0;
  #weightedMs = 0;

  constructor(memoryMs = defaultMemoryMs) {
    this.#memoryMs = memoryMs;
  }

  /** The count at a time. Time that does not advance is ignored; a count that falls starts anew. */
  add(timeMs: number, bytes: number): void {
    const last = this.#last;
    if (last !== undefined && bytes >= last.bytes) {
      const elapsedMs = timeMs - last.timeMs;
      if (elapsedMs <= 0) return;
      const keep = Math.exp(-elapsedMs / this.#memoryMs);
      // The interval's own weight, integrated over it.
      const weightMs = this.#memoryMs * (1 - keep);
      this.#weightedBytes = this.#weightedBytes * keep + (bytes - last.bytes) * weightMs / elapsedMs;
      this.#weightedMs = this.#weightedMs * keep + weightMs;
    } else {
      this.#weightedBytes = 0;
      this.#weightedMs = 0;
    }
    this.#last = { timeMs, bytes };
  }

  /** 0 until two counts are known; a rate below one byte a second is 0. */
  get bytesPerSecond(): number {
    if (this.#weightedMs === 0) return 0;
    const rate = this.#weightedBytes / this.#weightedMs * 1000;
    return rate < 1 ? 0 : rate;
  }
}

/** Seconds until `remainingBytes` are done; null if nothing moves. */
export function etaSeconds(remainingBytes: number, bytesPerSecond: number): number | null {
  if (remainingBytes <= 0) return 0;
  return bytesPerSecond > 0 ? Math.ceil(remainingBytes / bytesPerSecond) : null;
}
