/** The processes that a process started, as /proc tells. */
import { readdirSync, readFileSync } from "node:fs";

/** Pids of the running children of `parent` whose program has this name, or of all. */
export function childrenOf(parent: number, program?: string): number[] {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
    const [name, state, parentPid] = statOf(pid) ?? [];
    return (program ?? name) === name && state !== "Z" && parentPid === parent;
  });
}

/** Whether a process with this pid runs (a zombie does not). */
export function runs(pid: number): boolean {
  const state = statOf(pid)?.[1];
  return state !== undefined && state !== "Z";
}

function statOf(pid: number): [name: string, state: string, parentPid: number] | undefined {
  try {
    const [, name, state, parent] = /^\d+ \((.*)\) (\S) (\d+)/s.exec(
      readFileSync(`/proc/${pid}/stat`, "utf8"),
    )!;
    return [name!, state!, Number(parent)];
  } catch {
    return undefined;
  }
}
