/** Engines among the processes of this host, and what they have open, by /proc: for those that cannot be asked. */
import { readdirSync, readFileSync, readlinkSync, type Stats, statSync } from "node:fs";
import { join } from "node:path";
import { engineFiles } from "../engine/mod.ts";
import { identify, isRunning, type ProcessId } from "../lib/process-id.ts";
import type { RoleFolders } from "./layout.ts";

/** Running processes that were started as engines of this volume, by their argv. */
export function enginesOf({ state, run }: RoleFolders): ProcessId[] {
  const marks = `\0engine\0${state}\0${run}\0`;
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).flatMap((name) => {
    try {
      if (!readFileSync(`/proc/${name}/cmdline`, "utf8").includes(marks)) return [];
    } catch {
      return []; // Gone, or another user's.
    }
    const id = identify(Number(name));
    return id !== undefined && isRunning(id) ? [id] : [];
  });
}

/** The live map that an engine has open; undefined if it has none yet, or is gone. */
export function liveMapOf(pid: number): Stats | undefined {
  // As far as its mount point is still there; " (deleted)" behind it if the file is not (proc_pid_fd(5)).
  const isLiveMap = new RegExp(`/${RegExp.escape(engineFiles.liveMap)}( \\(deleted\\))?$`);
  const folder = `/proc/${pid}/fd`;
  try {
    for (const name of readdirSync(folder)) {
      const path = join(folder, name);
      const target = orUndefined(() => readlinkSync(path));
      if (target !== undefined && isLiveMap.test(target)) return statSync(path);
    }
  } catch {
    // The process, or this descriptor, is gone; or it is another user's.
  }
  return undefined;
}

function orUndefined<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
