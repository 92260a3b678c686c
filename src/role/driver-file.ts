/** Who drives a migration to its end: one process, which has the lock of the volume's run folder and left its name there. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { acquire } from "../lib/lock.ts";
import { identify, isRunning, type ProcessId } from "../lib/process-id.ts";
import type { RoleFolders } from "./layout.ts";

const fileName = "driver";

/** Takes the driver's place; undefined if another process has it, or the migration is gone. */
export function becomeDriver(folders: RoleFolders): { release(): void } | undefined {
  const lock = existsSync(folders.run) ? acquire(folders.run) : undefined;
  if (lock === undefined) return undefined;
  try {
    writeFileSync(join(folders.run, fileName), JSON.stringify(identify(process.pid)), { mode: 0o600 });
  } catch {
    // No space left, perhaps: the name is for the status only, what counts is the lock.
  }
  return lock;
}

/** The driver's pid; undefined if none runs. */
export function readDriver(folders: RoleFolders): number | undefined {
  try {
    const id = JSON.parse(readFileSync(join(folders.run, fileName), "utf8")) as ProcessId;
    return isRunning(id) ? id.pid : undefined;
  } catch {
    return undefined;
  }
}
