/** That the simulation of the engine finds what it is there for. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { mutants } from "./engine.ts";
import { firstFinding, planted } from "./plant.ts";

const test = suite("planted bugs of the engine are found");
/** Seeds that one may take to be found. */
const budget = 1500;

for (const [what, edits] of Object.entries(mutants)) {
  test(what, async () => {
    const found = await firstFinding(await planted(edits), budget);
    assert.ok(found !== undefined, `not found by ${budget} seeds`);
    if (process.env.SHOW_FINDINGS) console.log(`\n${what}: seed ${found.seed}: ${found.what.slice(0, 160)}`);
  });
}

test.run();
