/** Plants a bug into a copy of this checkout, so that a simulation can be run with it. */
import { cpSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
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

/** The module `main` of a copy of `parts` with the edits in it; all paths are from the checkout on. */
export async function planted<Module>(
  { room, parts, main }: { readonly room: string; readonly parts: readonly string[]; readonly main: string },
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
