/** How fast a count of bytes grows: samples it twice a second and smooths over a few seconds. */
const intervalMs = 500;
const smoothing = 0.2;

export class RateMeter {
  readonly #count: () => number;
  readonly #timer: NodeJS.Timeout;
  #last: { bytes: number; atMs: number };
  #rate: number | undefined;

  constructor(count: () => number) {
    this.#count = count;
    this.#last = { bytes: count(), atMs: performance.now() };
    this.#timer = setInterval(() => this.#sample(), intervalMs);
  }

  get bytesPerSecond(): number {
    return this.#rate ?? 0;
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #sample(): void {
    const now = { bytes: this.#count(), atMs: performance.now() };
    const rate = (now.bytes - this.#last.bytes) / ((now.atMs - this.#last.atMs) / 1000);
    this.#last = now;
    this.#rate = this.#rate === undefined ? rate : this.#rate + smoothing * (rate - this.#rate);
    if (this.#rate < 1) this.#rate = 0;
  }
}
