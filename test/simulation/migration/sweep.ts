/** The same run again and again, each time with one fault at another of its moments. */
import type { Code } from "./bundle.ts";
import type { Fault } from "./faults.ts";
import { type Result, runSeed } from "./run.ts";
import type { Choices } from "./scenario.ts";

/** A disk that moves from a to b, at the command of c. */
const plain: Partial<Choices> = {
  controller: "c",
  source: "a",
  destination: "b",
  disks: 1,
  handoff: "now",
  activation: "explicit",
  flags: [],
  writes: 3,
  faults: [],
  commands: [],
};

export interface Sweep {
  readonly name: string;
  readonly fault: Omit<Fault, "moment">;
  /** Each moment, or each n-th. */
  readonly every: number;
}

const seed = 1;

/** The runs that ended badly, and how many there were. */
export async function sweep(code: Code, { fault, every }: Sweep, over: Partial<Choices> = {}) {
  const calm = { ...plain, ...over };
  const { moments } = await runSeed(code, seed, { change: (chosen) => ({ ...chosen, ...calm }) });
  const bad: Result[] = [];
  let count = 0;
  for (let moment = 1; moment <= moments; moment += every) {
    const goal = moment % 2 === 0 ? "done" : "aborted";
    const change = (chosen: Choices): Choices => ({
      ...chosen,
      ...calm,
      goal,
      faults: [{ ...fault, moment }],
    });
    const result = await runSeed(code, seed, { change });
    count++;
    if (result.violations.length > 0) bad.push(result);
  }
  return { bad, count, moments };
}
