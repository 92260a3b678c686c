/**
 * That the simulation of the initiator finds what it is there for: breaks are planted into a copy of the
 * initiator, one at a time, and each has to be found within its budget of seeds.
 */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { breaks } from "./initiator/breaks.ts";
import type * as scenario from "./initiator/scenario.ts";
import { planted } from "./mutants/plant.ts";

const test = suite("breaks of the initiator are found");
/** Seeds that a break may take to be found. */
const budget = 120;

const copy = {
  room: "src/iscsi-initiator",
  parts: ["src/iscsi-initiator", "test/iscsi-initiator", "test/simulation", "test/engine/memory.ts"],
  main: "test/simulation/initiator/scenario.ts",
};

/** The first seed that finds it. A break may also end in an exception out of the initiator. */
async function firstFinding(
  run: typeof scenario.runSeed,
): Promise<{ seed: number; what: string } | undefined> {
  for (let seed = 1; seed <= budget; seed++) {
    try {
      await run(seed);
    } catch (error) {
      return { seed, what: String(error) };
    }
  }
  return undefined;
}

for (const [what, edits] of Object.entries(breaks)) {
  test(what, async () => {
    const found = await firstFinding((await planted<typeof scenario>(copy, edits)).runSeed);
    assert.ok(found !== undefined, `not found within ${budget} seeds`);
    if (process.env.SHOW_FINDINGS) console.log(`\n${what}: seed ${found.seed}: ${found.what.slice(0, 250)}`);
  });
}

test.run();
