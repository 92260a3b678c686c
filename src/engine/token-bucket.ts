/** A rate limit: tokens are bytes, and one bucket holds a tenth of a second's worth. Pure. */
export class TokenBucket {
  #bytesPerSecond: number;
  #tokens = 0;
  #filledAtMs: number;

  /** @param bytesPerSecond Infinity for no limit */
  constructor(bytesPerSecond: number, nowMs: number) {
    this.#bytesPerSecond = bytesPerSecond;
    this.#filledAtMs = nowMs;
  }

  get bytesPerSecond(): number {
    return this.#bytesPerSecond;
  }

  setRate(bytesPerSecond: number, nowMs: number): void {
    this.#fill(nowMs);
    this.#bytesPerSecond = bytesPerSecond;
    this.#tokens = Math.min(this.#tokens, this.#burst());
  }

  /**
   * Takes `bytes` if the bucket is not in debt, and returns 0; else takes nothing and returns how long to
   * wait, in milliseconds. A request larger than the bucket leaves a debt that later ones wait for.
   */
  take(bytes: number, nowMs: number): number {
    if (this.#bytesPerSecond === Infinity) return 0;
    this.#fill(nowMs);
    if (this.#tokens < 0) return Math.max(1, Math.ceil((-this.#tokens / this.#bytesPerSecond) * 1000));
    this.#tokens -= bytes;
    return 0;
  }

  #fill(nowMs: number): void {
    if (this.#bytesPerSecond !== Infinity) {
      const earned = Math.max(0, nowMs - this.#filledAtMs) / 1000 * this.#bytesPerSecond;
      this.#tokens = Math.min(this.#burst(), this.#tokens + earned);
    } else {
      this.#tokens = 0;
    }
    this.#filledAtMs = nowMs;
  }

  #burst(): number {
    return this.#bytesPerSecond / 10;
  }
}
