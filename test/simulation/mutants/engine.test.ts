/** That the simulation of the engine finds what it is there for. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type * as simulation from "../engine/simulate.ts";
import { mutants } from "./engine.ts";
import { planted } from "./plant.ts";

const test = suite("planted bugs of the engine are found");
/** Seeds that one may take to be found. */
const budget = 1500;

const copy = {
  room: "src/engine",
  parts: ["src", "test/engine/memory.ts", "test/simulation/engine", "test/simulation/clock.ts"],
  main: "test/simulation/engine/simulate.ts",
};

/** The first seed that finds something wrong; undefined if none within the budget does. */
async function firstFinding(
  run: typeof simulation.runSeed,
): Promise<{ readonly seed: number; readonly what: string } | undefined> {
  for (let seed = 1; seed <= budget; seed++) {
    const { error } = await run(seed);
    if (error !== undefined) return { seed, what: error.message };
  }
  return undefined;
}

for (const [what, edits] of Object.entries(mutants)) {
  test(what, async () => {
    const { runSeed } = await planted<typeof simulation>(copy, edits);
    const found = await firstFinding(runSeed);
    assert.ok(found !== undefined, `not found by ${budget} seeds`);
    if (process.env.SHOW_FINDINGS) console.log(`\n${what}: seed ${found.seed}: ${found.what.slice(0, 160)}`);
  });
}

test.run();
