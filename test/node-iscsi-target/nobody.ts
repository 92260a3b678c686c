/** Runs unprivileged.ts as the user nobody; needs root and setpriv. */
import { chownSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { tempFolder } from "../helpers/temp.ts";

export const nobody = 65534;
const dropped = ["--reuid", String(nobody), "--regid", String(nobody), "--clear-groups"];
const helper = join(import.meta.dirname!, "unprivileged.ts");
const options = "Deno" in globalThis ? ["run", "-A"] : ["--disable-warning=ExperimentalWarning"];

/** Whether another user may run what this checkout holds. */
export async function isOpenToOthers(): Promise<boolean> {
  for (const command of [[process.execPath, "--version"], ["cat", helper]]) {
    const { exitCode } = await execa("setpriv", [...dropped, ...command], { reject: false });
    if (exitCode !== 0) return false;
  }
  return true;
}

/** What the helper prints on stdout is JSON; on stderr is why it failed. */
export function exportAsNobody(daemonFolder: string, path: string) {
  const cache = tempFolder("deno");
  chownSync(cache, nobody, nobody);
  const argv = [...dropped, process.execPath, ...options, helper, daemonFolder, path];
  return execa("setpriv", argv, { reject: false, env: { HOME: cache, DENO_DIR: cache } });
}
