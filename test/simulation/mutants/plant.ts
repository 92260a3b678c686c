/** Plants a bug into a copy of this checkout, so that a simulation can be run with it. */
import { cpSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Test } from "uvu";
import * as assert from "uvu/assert";
import { tempFolder } from "../../helpers/temp.ts";

export interface Edit {
  /** In the room that is copied. */
  readonly file: string;
  /** Text that is there exactly once. */
  readonly from: string;
  readonly to: string;
}

const checkout = join(import.meta.dirname!, "..", "..", "..");

/** What is copied; paths are from the checkout on. */
export interface Copy {
  /** Where the edits are made. */
  readonly room: string;
  readonly parts: readonly string[];
  /** The simulation. */
  readonly main: string;
}

/**
 * A test for each bug: with it in the copy, one of the first `budget` seeds has to find something wrong.
 * SHOW_FINDINGS in the environment shows which, and what.
 */
export function findsEach<Simulation>(
  test: Test,
  { bugs, copy, budget }: {
    readonly bugs: Readonly<Record<string, readonly Edit[]>>;
    readonly copy: Copy;
    readonly budget: number;
  },
  /** What is wrong with the seed; undefined if nothing is. */
  wrongWith: (simulation: Simulation, seed: number) => Promise<string | undefined>,
): void {
  for (const [bug, edits] of Object.entries(bugs)) {
    test(bug, async () => {
      const simulation = await planted<Simulation>(copy, edits);
      let found: string | undefined;
      let seed = 0;
      while (found === undefined && seed < budget) found = await wrongWith(simulation, ++seed);
      assert.ok(found !== undefined, `not found by ${budget} seeds`);
      if (process.env.SHOW_FINDINGS) console.log(`\n${bug}: seed ${seed}: ${found.slice(0, 250)}`);
    });
  }
}

/** The module `main` of a copy of `parts` with the edits in it. */
export async function planted<Module>(
  { room, parts, main }: Copy,
  edits: readonly Edit[],
): Promise<Module> {
  const folder = tempFolder("mutant");
  for (const part of parts) cpSync(join(checkout, part), join(folder, part), { recursive: true });
  symlinkSync(join(checkout, "node_modules"), join(folder, "node_modules"));
  writeFileSync(join(folder, "package.json"), `{ "type": "module" }`);
  for (const { file, from, to } of edits) {
    const path = join(folder, room, file);
    const text = readFileSync(path, "utf8");
    assert.is(text.split(from).length, 2, `${file} has to hold once: ${from}`);
    writeFileSync(path, text.replace(from, () => to));
  }
  return await import(pathToFileURL(join(folder, main)).href);
}
