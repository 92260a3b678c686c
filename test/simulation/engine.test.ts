/** The simulation of the engine: seeds one after the other, those that once found something among them. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { expected } from "./engine/expected.ts";
import { replayCommand, shrink } from "./engine/shrink.ts";
import { type Outcome, runSeed } from "./engine/simulate.ts";

const test = suite("simulation of the engine");

/** Deno takes longer for a turn of its event loop. */
const seeds = Number(process.env.DLSM_SIMULATION_SEEDS ?? ("Deno" in globalThis ? 600 : 2000));

/** Each of them found something once; what, is in test/engine/found-by-simulation.test.ts and map-choice.test.ts. */
const foundSomething: readonly number[] = [371, 140, 205, 107, 1_016_697, 449_930_501];

async function expectNothing(seed: number): Promise<Outcome> {
  const outcome = await runSeed(seed);
  if (outcome.error !== undefined) {
    const small = await shrink(seed);
    assert.unreachable(`seed ${seed}: ${outcome.error.message}\nagain: ${replayCommand(small)}`);
  }
  return outcome;
}

test(`${seeds} seeds, and they reach everything`, async () => {
  const reached = new Set<string>();
  for (let seed = 1; seed <= seeds; seed++) {
    for (const what of (await expectNothing(seed)).reached.keys()) reached.add(what);
  }
  if (seeds >= 1000) assert.equal(expected.filter((what) => !reached.has(what)), []);
});

test("seeds that once found something", async () => {
  for (const seed of foundSomething) await expectNothing(seed);
});

test("the same seed goes the same way", async () => {
  for (const seed of [3, 44, 205]) {
    const [one, other] = [await runSeed(seed), await runSeed(seed)];
    assert.equal(
      [other.events, other.milliseconds, [...other.reached]],
      [one.events, one.milliseconds, [...one.reached]],
    );
  }
});

test.run();
