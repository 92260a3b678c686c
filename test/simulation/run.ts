/**
 * The simulation of the engine, as long as one likes:
 *
 *     npm run simulate -- --minutes 60 [--from SEED]     seeds from a random one on
 *     npm run simulate -- --seeds 1000 [--from SEED]     so many
 *     npm run simulate -- --seed 123 [--without FEATURE,…] [--requests N]     one again
 *
 * Says how many seeds a second, and what was reached how often. Exit code 1 if a seed failed (it is made small,
 * with the command that runs it again) or if something that should be reached was not; 2 for bad arguments.
 */
import { parseArgs } from "node:util";
import { expected } from "./engine/expected.ts";
import { features } from "./engine/scenario.ts";
import { replayCommand, shrink } from "./engine/shrink.ts";
import { runSeed } from "./engine/simulate.ts";

const help = `npm run simulate -- --minutes 60 [--from SEED]     seeds from a random one on
npm run simulate -- --seeds 1000 [--from SEED]     so many
npm run simulate -- --seed 123 [--without FEATURE,...] [--requests N]     one again
features: ${features.join(" ")}`;

const { values } = readArguments();

function readArguments() {
  try {
    return parseArgs({
      options: {
        minutes: { type: "string" },
        seeds: { type: "string" },
        from: { type: "string" },
        seed: { type: "string" },
        without: { type: "string", default: "" },
        requests: { type: "string" },
      },
    });
  } catch (error) {
    usage((error as Error).message);
  }
}

function usage(problem: string): never {
  console.error(`${problem}\n${help}`);
  process.exit(2);
}

function number(name: "minutes" | "seeds" | "from" | "seed" | "requests"): number | undefined {
  const text = values[name];
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!(value > 0)) usage(`--${name} needs a number above 0`);
  return value;
}

const without = values.without.split(",").filter((name) => name !== "");
const unknown = without.filter((name) => !(features as readonly string[]).includes(name));
if (unknown.length > 0) usage(`there is no feature ${unknown.join(", ")}`);

const one = number("seed");
process.exitCode = one === undefined ? await runMany() : await runOne(one);

async function runOne(seed: number): Promise<number> {
  const requests = number("requests");
  const outcome = await runSeed(seed, { without, ...requests === undefined ? {} : { requests } });
  const { scenario, reached, events, milliseconds, error } = outcome;
  console.log({ ...scenario, has: [...scenario.has].join(" ") });
  console.log(Object.fromEntries([...reached].sort()));
  console.log(`${events} events in ${(milliseconds / 1000).toFixed(3)} simulated seconds`);
  if (error !== undefined) console.log(error);
  else console.log("nothing was wrong");
  return error === undefined ? 0 : 1;
}

async function runMany(): Promise<number> {
  const from = Math.floor(number("from") ?? 1 + Math.random() * 2 ** 30);
  const seeds = number("seeds") ?? Infinity;
  const endMs = performance.now() + (number("minutes") ?? (seeds === Infinity ? 1 : Infinity)) * 60_000;
  const reached = new Map<string, number>();
  const startedMs = performance.now();
  let [count, events, simulatedMs, failed] = [0, 0, 0, 0];
  let toldMs = startedMs;
  console.log(`seeds from ${from} on; a process that hangs has got as far as it last said`);
  while (count < seeds && performance.now() < endMs) {
    const outcome = await runSeed(from + count++);
    events += outcome.events;
    simulatedMs += outcome.milliseconds;
    for (const [what, times] of outcome.reached) reached.set(what, (reached.get(what) ?? 0) + times);
    if (outcome.error !== undefined) {
      failed++;
      const small = await shrink(outcome.scenario.seed);
      console.log(`seed ${outcome.scenario.seed} FAILED: ${outcome.error.message}`);
      console.log(`  smaller: ${small.outcome.error?.message}\n  again: ${replayCommand(small)}`);
    }
    if (performance.now() - toldMs > 60_000) {
      toldMs = performance.now();
      console.log(`${count} seeds, up to ${from + count - 1}, ${failed} failed`);
    }
  }
  const seconds = (performance.now() - startedMs) / 1000;
  console.log("what was reached, and how often:");
  for (const [what, times] of [...reached].sort()) console.log(`${String(times).padStart(10)}  ${what}`);
  console.log(
    `${count} seeds from ${from} on in ${seconds.toFixed(0)} s, ${(count / seconds).toFixed(0)} a second; ` +
      `${events} events, ${(simulatedMs / 3_600_000).toFixed(1)} simulated hours; ${failed} failed`,
  );
  const missed = count < 1000 ? [] : expected.filter((what) => !reached.has(what));
  if (missed.length > 0) console.log(`never reached: ${missed.join(", ")}`);
  return failed > 0 || missed.length > 0 ? 1 : 0;
}
