/**
 * What a test needs from the machine. A test that cannot run here is skipped aloud, with the reason, and is
 * counted as skipped. In CI (`CI` set) a missing program is an error, because the project's own scripts
 * install all of them.
 */
import { accessSync, constants, existsSync, readdirSync } from "node:fs";
import { delimiter, join } from "node:path";
import type { Test } from "uvu";
import { skipMarker } from "./verdict.ts";

/** Where PATH may not lead: programs of root, and Debian's of PostgreSQL, each version by itself. */
const postgres = "/usr/lib/postgresql";
const apart = [
  "/usr/local/sbin",
  "/usr/sbin",
  "/sbin",
  ...(existsSync(postgres) ? readdirSync(postgres).map((version) => join(postgres, version, "bin")) : []),
];

/** Full path of a program, looked up as a shell would and in those folders; undefined if it is missing. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? "").split(delimiter), ...apart];
  for (const folder of folders) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Look on.
    }
  }
  return undefined;
}

export const isRoot = process.getuid?.() === 0;

/**
 * `it(test)(name, body)`-style gate: registers `body` if every program is there, else a loud skip.
 *
 *     const test = suite("engine");
 *     const withFio = needing(test, ["fio"]);
 *     withFio("verifies under load", async () => { … });
 */
export function needing<T>(
  test: Test<T>,
  programs: readonly string[],
  options: {
    readonly root?: boolean;
    /** Why it cannot run here, for a reason of its own. */
    readonly unless?: string;
  } = {},
): Test<T>["skip"] {
  const missing = programs.filter((program) => findProgram(program) === undefined);
  if (missing.length > 0 && process.env.CI) {
    throw new Error(`CI must have ${missing.join(", ")}: ./install.sh --test-tools installs them`);
  }
  const reason = missing.length > 0
    ? `needs ${missing.join(", ")} (./install.sh --test-tools)`
    : options.root && !isRoot
    ? "needs root"
    : options.unless;
  if (reason === undefined) return test as unknown as Test<T>["skip"];
  return (name, body) => {
    console.log(`${skipMarker}${name}: ${reason}`);
    test.skip(name, body);
  };
}
