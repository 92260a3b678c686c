/** What is broken right now, when something last was, and how often each thing was reached. */

export type Fault =
  | "diskErrors"
  | "diskFull"
  | "syncErrors"
  | "mapFull"
  | "mediumErrors"
  | "outages"
  | "stalls";

export class Faults {
  readonly #active = new Map<Fault, number>();
  /** When a request last met one, as a tick of the model. */
  readonly #met = new Map<Fault, number>();
  readonly reached = new Map<string, number>();
  readonly #tick: () => number;

  constructor(tick: () => number) {
    this.#tick = tick;
  }

  count(what: string): void {
    this.reached.set(what, (this.reached.get(what) ?? 0) + 1);
  }

  begin(fault: Fault): void {
    this.#active.set(fault, (this.#active.get(fault) ?? 0) + 1);
  }

  end(fault: Fault): void {
    this.#active.set(fault, this.#active.get(fault)! - 1);
  }

  has(fault: Fault): boolean {
    return (this.#active.get(fault) ?? 0) > 0;
  }

  get isNone(): boolean {
    return [...this.#active.values()].every((count) => count === 0);
  }

  /** A request is about to feel it. */
  meet(fault: Fault): void {
    this.#met.set(fault, this.#tick());
    this.count(`fault ${fault}`);
  }

  /** Whether a request that began then may be refused for one of these. */
  excuse(since: number, ...faults: readonly Fault[]): boolean {
    return faults.some((fault) => (this.#met.get(fault) ?? -1) >= since);
  }
}
