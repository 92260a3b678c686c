/**
 * The long mode: `npm run fuzz -- [--minutes 10] [--only NAME …] [--seed N] [--path P]`.
 *
 * All targets take turns, each turn with a seed of its own, for as long as it is told. It ends with exit code 1
 * at the first failure, with the command that checks the failing input again. An input that never ends is a
 * failure as well: the targets run in another thread, which this one watches.
 */
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { oneSided, replayCommand, type Report, type Verdict } from "./target.ts";
import { targets } from "./targets.ts";
import type { Turn, TurnDone } from "./turns.ts";

const usage = "npm run fuzz -- [--minutes 10] [--only NAME]... [--seed N --path P]";
const { values } = readArguments();

function readArguments() {
  try {
    return parseArgs({
      options: {
        minutes: { type: "string", default: "10" },
        only: { type: "string", multiple: true },
        seed: { type: "string" },
        path: { type: "string" },
      },
    });
  } catch (error) {
    console.error(`${(error as Error).message}\n${usage}`);
    process.exit(2);
  }
}
const turnMs = 2000;
const hangMs = 30_000;
/** Below this the shares of accepted and refused inputs say little. */
const minExecutions = 500;

const chosen = targets.filter(({ name }) => values.only === undefined || values.only.includes(name));
const unknown = values.only?.filter((name) => !targets.some((target) => target.name === name)) ?? [];
const minutes = Number(values.minutes);
if (unknown.length > 0 || !(minutes > 0)) {
  console.error(unknown.length > 0 ? `there is no target ${unknown.join(", ")}` : "--minutes needs a number");
  console.error(`the targets are ${targets.map(({ name }) => name).join(", ")}`);
  process.exit(2);
}

interface Total {
  executions: number;
  ms: number;
  slowestMs: number;
  readonly verdicts: Record<Verdict, number>;
}

const totals = new Map<string, Total>();

/** One turn in the other thread; rejects if it makes no progress. */
function take(worker: Worker, progress: Int32Array, turn: Turn): Promise<Report & { tookMs: number }> {
  return new Promise((resolve, reject) => {
    let seen = -1;
    progress[0] = 0;
    const watch = setInterval(() => {
      if (progress[0] === seen) finish(() => reject(new Error(hang(turn, seen))));
      seen = progress[0]!;
    }, hangMs);
    const onDone = (done: TurnDone) => finish(() => resolve(done));
    const onError = (error: Error) => finish(() => reject(error));
    const finish = (settle: () => void) => {
      clearInterval(watch);
      worker.off("message", onDone).off("error", onError);
      settle();
    };
    worker.on("message", onDone).on("error", onError);
    worker.postMessage(turn);
  });
}

/** Its number is its path, as long as none before it failed and was made smaller. */
function hang({ name, seed }: Turn, number: number): string {
  const path = String(Math.max(0, number - 1));
  return `${name}: no end after ${hangMs} ms\nagain: ${replayCommand(name, { seed, path })}`;
}

function add(name: string, { executions, slowestMs, verdicts, tookMs }: Report & { tookMs: number }): void {
  const total = totals.get(name) ??
    { executions: 0, ms: 0, slowestMs: 0, verdicts: { accepted: 0, refused: 0 } };
  totals.set(name, total);
  total.executions += executions;
  total.ms += tookMs;
  total.slowestMs = Math.max(total.slowestMs, slowestMs);
  for (const verdict of ["accepted", "refused"] as const) total.verdicts[verdict] += verdicts[verdict];
}

function print(): void {
  const row = (name: string, cells: readonly string[]) =>
    console.log(name.padEnd(26) + cells.map((cell) => cell.padStart(12)).join(""));
  row("target", ["executions", "per second", "accepted", "refused", "slowest"]);
  for (const [name, { executions, ms, slowestMs, verdicts }] of totals) {
    const share = (count: number) => `${(100 * count / Math.max(1, executions)).toFixed(1)} %`;
    const perSecond = Math.round(executions / ms * 1000).toString();
    const slowest = `${slowestMs.toFixed(1)} ms`;
    row(name, [String(executions), perSecond, share(verdicts.accepted), share(verdicts.refused), slowest]);
  }
}

async function main(): Promise<string[]> {
  const progress = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(new URL("./turns.ts", import.meta.url), { workerData: progress });
  const isReplay = values.seed !== undefined;
  const endAt = performance.now() + minutes * 60_000;
  try {
    do {
      for (const { name } of chosen) {
        const seed = isReplay ? Number(values.seed) : Math.floor(Math.random() * 2 ** 31);
        const path = values.path === undefined ? {} : { path: values.path };
        const report = await take(worker, progress, { name, seed, timeLimitMs: turnMs, ...path });
        add(name, report);
        const { failure } = report;
        if (failure !== undefined) {
          return [`${name}: ${failure.message}\nagain: ${replayCommand(name, failure)}`];
        }
        if (performance.now() >= endAt) break;
      }
    } while (!isReplay && performance.now() < endAt);
  } catch (error) {
    return [error instanceof Error ? error.message : String(error)];
  } finally {
    await worker.terminate();
  }
  if (isReplay) return [];
  return [...totals].flatMap(([name, total]) => {
    const { atLeast } = chosen.find((each) => each.name === name)!;
    const isEnough = total.executions >= minExecutions;
    const problem = isEnough ? oneSided({ atLeast }, { ...total, failure: undefined }) : undefined;
    return problem === undefined ? [] : [`${name}: ${problem}`];
  });
}

const problems = await main();
print();
const executions = [...totals.values()].reduce((sum, total) => sum + total.executions, 0);
for (const problem of problems) console.error(`FAILED ${problem}`);
console.log(`${executions} inputs, ${problems.length === 0 ? "nothing found" : "see above"}`);
process.exit(problems.length === 0 ? 0 : 1);
