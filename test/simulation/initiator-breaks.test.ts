/**
 * That the simulation of the initiator finds what it is there for: breaks are planted into a copy of the
 * initiator, one at a time, and each has to be found within its budget of seeds.
 */
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { tempFolder } from "../helpers/temp.ts";
import { breaks, type Edit } from "./initiator/breaks.ts";
import type { runSeed } from "./initiator/scenario.ts";

const test = suite("breaks of the initiator are found");
const checkout = join(import.meta.dirname!, "..", "..");
/** Seeds that a break may take to be found. */
const budget = 120;

/** What a run loads: the initiator, and the parts of the simulation. */
const parts = ["src/iscsi-initiator", "test/iscsi-initiator", "test/simulation", "test/engine/memory.ts"];

/** A copy with the edits in it, and its `runSeed`. */
async function broken(edits: readonly Edit[]): Promise<typeof runSeed> {
  const folder = tempFolder("break");
  for (const part of parts) cpSync(join(checkout, part), join(folder, part), { recursive: true });
  writeFileSync(join(folder, "package.json"), `{ "type": "module" }`);
  for (const { file, from, to } of edits) {
    const path = join(folder, "src", "iscsi-initiator", file);
    const text = readFileSync(path, "utf8");
    assert.is(text.split(from).length, 2, `${file} has to hold once: ${from}`);
    writeFileSync(path, text.replace(from, () => to));
  }
  const scenario = join(folder, "test", "simulation", "initiator", "scenario.ts");
  return (await import(pathToFileURL(scenario).href)).runSeed;
}

/** The first seed that finds it. A break may also end in an exception out of the initiator. */
async function firstFinding(run: typeof runSeed): Promise<{ seed: number; what: string } | undefined> {
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
    const found = await firstFinding(await broken(edits));
    assert.ok(found !== undefined, `not found within ${budget} seeds`);
    if (process.env.SHOW_FINDINGS) console.log(`\n${what}: seed ${found.seed}: ${found.what.slice(0, 250)}`);
  });
}

test.run();
