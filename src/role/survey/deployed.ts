/** What `--deploy` from other hosts left in the folder of this user. */
import { readdirSync, readlinkSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { formatSize } from "../../lib/units.ts";
import { deployedHash } from "../../ssh/mod.ts";
import { type Finding, note } from "./finding.ts";

/** The programs that no process runs now, this one included. */
export function deployedFindings(): Finding[] {
  const folder = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "dlsm", "bin");
  const running = runningPrograms();
  const idle = listed(folder).map((name) => join(folder, name)).filter((path) =>
    deployedHash(path) !== undefined && !running.has(path)
  );
  if (idle.length === 0) return [];
  const bytes = idle.reduce((sum, path) => sum + (statSync(path, { throwIfNoEntry: false })?.size ?? 0), 0);
  const what = idle.length === 1 ? "a dlsm that was" : `${idle.length} dlsm that were`;
  return [note(
    "deployed",
    folder,
    `${folder} has ${what} copied here with --deploy and not used now (${formatSize(bytes)})`,
    `nothing (a later --deploy removes what was not used for a week), or rm ${idle.join(" ")}`,
  )];
}

/** Files that processes of this user (root: of all) are. */
function runningPrograms(): Set<string> {
  return new Set(
    listed("/proc").filter((name) => /^\d+$/.test(name)).flatMap((name) => {
      try {
        return readlinkSync(`/proc/${name}/exe`);
      } catch {
        return []; // Gone, or another user's.
      }
    }),
  );
}

function listed(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
