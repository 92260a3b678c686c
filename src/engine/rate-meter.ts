/** How fast a count of bytes grows: looks at it twice a second. */
import { RateEstimator } from "../lib/rate.ts";

const intervalMs = 500;

export class RateMeter {
  readonly #estimator = new RateEstimator();
  readonly #timer: NodeJS.Timeout;

  constructor(count: () => number) {
    this.#estimator.add(performance.now(), count());
    this.#timer = setInterval(() => this.#estimator.add(performance.now(), count()), intervalMs);
  }

  get bytesPerSecond(): number {
    return this.#estimator.bytesPerSecond;
  }

  close(): void {
    clearInterval(this.#timer);
  }
}
