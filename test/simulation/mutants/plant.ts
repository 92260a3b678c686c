/** Plants a bug into a copy of this checkout, and runs seeds with it. */
import { cpSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import * as assert from "uvu/assert";
import { tempFolder } from "../../helpers/temp.ts";
import type { runSeed } from "../engine/simulate.ts";
import type { Edit } from "./engine.ts";

const checkout = join(import.meta.dirname!, "..", "..", "..");
/** What the simulation of the engine loads. */
const parts = ["src", "test/engine/memory.ts", "test/simulation/engine", "test/simulation/clock.ts"];

/** The simulation of an engine with the edits in it. */
export async function planted(edits: readonly Edit[]): Promise<typeof runSeed> {
  const folder = tempFolder("mutant");
  for (const part of parts) cpSync(join(checkout, part), join(folder, part), { recursive: true });
  symlinkSync(join(checkout, "node_modules"), join(folder, "node_modules"));
  writeFileSync(join(folder, "package.json"), `{ "type": "module" }`);
  for (const { file, from, to } of edits) {
    const path = join(folder, "src", "engine", file);
    const text = readFileSync(path, "utf8");
    assert.is(text.split(from).length, 2, `${file} has to hold once: ${from}`);
    writeFileSync(path, text.replace(from, () => to));
  }
  const main = join(folder, "test", "simulation", "engine", "simulate.ts");
  return (await import(pathToFileURL(main).href)).runSeed;
}

/** The first seed that finds something wrong; undefined if none up to the last one does. */
export async function firstFinding(
  run: typeof runSeed,
  lastSeed: number,
): Promise<{ readonly seed: number; readonly what: string } | undefined> {
  for (let seed = 1; seed <= lastSeed; seed++) {
    const { error } = await run(seed);
    if (error !== undefined) return { seed, what: error.message };
  }
  return undefined;
}
