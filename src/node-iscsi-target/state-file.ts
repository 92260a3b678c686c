/** The file in a daemon's folder that says which process is its tgtd. Written once that is ready. */
import { readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { writePrivateFile } from "../lib/atomic-file.ts";
import type { ProcessId } from "./process.ts";
import type { Namespace } from "./view.ts";

export const stateName = "state.json";

export interface DaemonState extends ProcessId {
  readonly version: 1;
  readonly namespace: Namespace;
  /** Full path. */
  readonly tgtadm: string;
}

export function writeState(folder: string, state: DaemonState): void {
  const path = join(folder, stateName);
  writePrivateFile(`${path}.new`, `${JSON.stringify(state)}\n`);
  renameSync(`${path}.new`, path);
}

/** undefined: there is none, or it makes no sense. */
export function readState(folder: string): DaemonState | undefined {
  try {
    const state = JSON.parse(readFileSync(join(folder, stateName), "utf8")) as DaemonState;
    const sound = state.version === 1 && Number.isInteger(state.pid) && state.pid > 0 &&
      typeof state.startTime === "string" && typeof state.bootId === "string" &&
      typeof state.tgtadm === "string" && ["root", "user", "none"].includes(state.namespace);
    return sound ? state : undefined;
  } catch {
    return undefined;
  }
}
