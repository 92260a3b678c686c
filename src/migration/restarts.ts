/** Tells what ends now and then, over weeks, from what does not stay up. Pure. */

/** Engines or exports started again within the window at most; more, and something is wrong with them. */
const mostRestarts = 20;
const windowMs = 600_000;

export class Restarts {
  #atMs: number[] = [];

  /** One more; false if that is one too many. `nowMs`: of a clock that nobody sets. */
  count(nowMs: number): boolean {
    this.#atMs = [...this.#atMs.filter((atMs) => nowMs - atMs < windowMs), nowMs];
    return this.#atMs.length <= mostRestarts;
  }
}
