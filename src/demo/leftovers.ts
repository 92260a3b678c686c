/** What a migration in the demo's folders may leave behind: processes and files. */
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { join, sep } from "node:path";
import { hasEnded, identify, kill, type ProcessId } from "../lib/process-id.ts";
import { endedName, hostIdName, type RoleFolders } from "../role/mod.ts";
import type { Check } from "./checks.ts";

/** A process that was told to go may still be there for a moment. */
const goneTimeoutMs = 2_000;

/**
 * tgtd (which runs in its run folder) and dlsm's own processes (which are given theirs as arguments); nobody
 * else's, for the folders have a name that no other has.
 */
export function processesOf(folders: RoleFolders): ProcessId[] {
  const isInside = (path: string) =>
    [folders.state, folders.run].some((folder) => path.startsWith(folder + sep));
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).flatMap((name) => {
    try {
      const words = readFileSync(`/proc/${name}/cmdline`, "utf8").split("\0");
      const isTgtd = words[0].endsWith("tgtd") && isInside(readlinkSync(`/proc/${name}/cwd`));
      const isEngine = words.includes("engine") && words.some(isInside);
      const id = isTgtd || isEngine ? identify(Number(name)) : undefined;
      return id === undefined ? [] : [id];
    } catch {
      return []; // Gone, or another user's.
    }
  });
}

/** Files, sockets included; empty folders do not count, nor the record of what ended and the host's id. */
export function filesOf(folders: RoleFolders): string[] {
  return [folders.state, folders.run].filter((folder) => existsSync(folder)).flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: "utf8" })
      .filter((name) => name !== endedName && name !== hostIdName)
      .map((name) => join(folder, name))
      .filter((path) => statSync(path, { throwIfNoEntry: false })?.isDirectory() === false)
  );
}

/** @param known the processes that there were */
export async function checkNothingLeft(folders: RoleFolders, known: readonly ProcessId[]): Promise<Check> {
  const running: number[] = [];
  for (const id of [...known, ...processesOf(folders)]) {
    if (!await hasEnded(id, goneTimeoutMs)) running.push(id.pid);
  }
  const files = filesOf(folders);
  const isPassed = running.length === 0 && files.length === 0;
  return {
    name: "nothingLeft",
    isPassed,
    text: isPassed
      ? "nothing is left: no process, no socket, no target, no state"
      : `left behind: ${[...new Set(running).values().map((pid) => `process ${pid}`), ...files].join(", ")}`,
  };
}

/** Ends what an abort could not: it only serves a demo's disk. */
export async function killProcessesOf(folders: RoleFolders): Promise<void> {
  for (const id of processesOf(folders)) {
    kill(id, "SIGKILL");
    await hasEnded(id, goneTimeoutMs);
  }
}
