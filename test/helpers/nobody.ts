/** Runs scripts of the tests as the user nobody; needs root and setpriv. */
import { chownSync } from "node:fs";
import { execa } from "execa";
import { tempFolder } from "./temp.ts";

export const nobody = 65534;
const dropped = ["--reuid", String(nobody), "--regid", String(nobody), "--clear-groups"];
const options = "Deno" in globalThis ? ["run", "-A"] : ["--disable-warning=ExperimentalWarning"];

/** Whether another user may run what this checkout holds. */
export async function isOpenToOthers(): Promise<boolean> {
  for (const command of [[process.execPath, "--version"], ["cat", import.meta.filename!]]) {
    const { exitCode } = await execa("setpriv", [...dropped, ...command], { reject: false });
    if (exitCode !== 0) return false;
  }
  return true;
}

export function runAsNobody(script: string, ...args: readonly string[]) {
  const cache = tempFolder("deno");
  chownSync(cache, nobody, nobody);
  const argv = [...dropped, process.execPath, ...options, script, ...args];
  return execa("setpriv", argv, { reject: false, env: { HOME: cache, DENO_DIR: cache } });
}
