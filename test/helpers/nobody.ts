/** Runs scripts of the tests as the user nobody; needs root and setpriv. */
import { chownSync } from "node:fs";
import { execa } from "execa";
import { findProgram, isRoot } from "./needs.ts";
import { tempFolder } from "./temp.ts";

export const nobody = 65534;
const dropped = ["--reuid", String(nobody), "--regid", String(nobody), "--clear-groups"];
const options = "Deno" in globalThis ? ["run", "-A"] : ["--disable-warning=ExperimentalWarning"];

/** Why another user may not run what this checkout holds; undefined if it may. */
export async function closedToOthers(): Promise<string | undefined> {
  if (!isRoot || findProgram("setpriv") === undefined) return undefined;
  for (const command of [[process.execPath, "--version"], ["cat", import.meta.filename!]]) {
    const { exitCode } = await execa("setpriv", [...dropped, ...command], { reject: false });
    if (exitCode !== 0) return "this checkout is closed to other users";
  }
  return undefined;
}

export function runAsNobody(script: string, ...args: readonly string[]) {
  const cache = tempFolder("deno");
  chownSync(cache, nobody, nobody);
  const argv = [...dropped, process.execPath, ...options, script, ...args];
  return execa("setpriv", argv, { reject: false, env: { HOME: cache, DENO_DIR: cache } });
}
