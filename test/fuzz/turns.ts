/** The thread of the long mode in which the targets run, one turn at a time. */
import { parentPort, workerData } from "node:worker_threads";
import type { Report } from "./target.ts";
import { targets } from "./targets.ts";

export interface Turn {
  readonly name: string;
  readonly seed: number;
  readonly path?: string;
  readonly timeLimitMs: number;
}

export type TurnDone = Report & { readonly tookMs: number };

/** Far more than fit in a turn. */
const maxRuns = 100_000_000;

const progress = workerData as Int32Array;

parentPort!.on("message", async ({ name, timeLimitMs, ...rest }: Turn) => {
  const startedAt = performance.now();
  // One input that is checked again may take all the time that it needs.
  const limits = rest.path === undefined ? { runs: maxRuns, timeLimitMs } : {};
  const report = await targets.find((target) => target.name === name)!.fuzz({
    ...rest,
    ...limits,
    onInput: (number) => {
      Atomics.store(progress, 0, number);
    },
  });
  const done: TurnDone = { ...report, tookMs: performance.now() - startedAt };
  parentPort!.postMessage(done);
});
