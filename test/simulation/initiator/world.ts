/** What all parts of one simulated run share: the time, the chance, what was reached and what went wrong. */
import type { Clock } from "../../../src/iscsi-initiator/mod.ts";
import { Random } from "../../engine/memory.ts";
import { SimClock } from "../clock.ts";

export class World {
  readonly random: Random;
  readonly clock = new SimClock();
  /** How often each fault and each outcome came up. */
  readonly reached = new Map<string, number>();
  /** Promises of the initiator that were broken. */
  readonly problems: string[] = [];
  readonly trace: string[] | undefined;
  /** Until then the target and the network misbehave; afterwards new connections are sane. */
  chaosEndsMs = 0;

  constructor(seed: number, isTraced: boolean) {
    this.random = new Random(seed);
    this.trace = isTraced ? [] : undefined;
  }

  get nowMs(): number {
    return this.clock.now();
  }

  /** The initiator's clock. */
  get initiatorClock(): Clock {
    return {
      nowMs: () => this.clock.now(),
      after: (delayMs, callback) => this.clock.after(delayMs, callback),
    };
  }

  get isChaotic(): boolean {
    return this.nowMs < this.chaosEndsMs;
  }

  /** Whether a fault comes up now; it is counted as reached. */
  strikes(fault: string, probability: number): boolean {
    if (!this.isChaotic || !this.random.chance(probability)) return false;
    this.reach(fault);
    return true;
  }

  reach(what: string): void {
    this.reached.set(what, (this.reached.get(what) ?? 0) + 1);
    this.note(what);
  }

  note(text: string): void {
    this.trace?.push(`${this.nowMs.toFixed(3)} ${text}`);
  }

  broken(text: string): void {
    this.note(`BROKEN: ${text}`);
    if (this.problems.length < 10) this.problems.push(`at ${this.nowMs.toFixed(3)} ms: ${text}`);
  }

  /** From 0 to the bound, small ones far more often. */
  skewed(bound: number): number {
    return bound * this.random.next() ** 4;
  }
}
