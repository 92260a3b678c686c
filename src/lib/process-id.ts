/** Processes as /proc shows them: which one is ours, and whether it still runs. */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

/** A process, told apart from a later one with the same pid. */
export interface ProcessId {
  readonly pid: number;
  /** Clock ticks since boot, from /proc/PID/stat. */
  readonly startTime: string;
  readonly bootId: string;
}

/** Names this boot of the machine. */
export function bootId(): string {
  return readProc("/proc/sys/kernel/random/boot_id")?.trim() ?? "";
}

/** Undefined: there is no such process. */
export function identify(pid: number): ProcessId | undefined {
  const stat = statOf(pid);
  return stat && { pid, startTime: stat.startTime, bootId: bootId() };
}

export function isRunning(id: ProcessId): boolean {
  const stat = statOf(id.pid);
  return stat !== undefined && stat.state !== "Z" && stat.state !== "X" && stat.startTime === id.startTime &&
    id.bootId === bootId();
}

/** True once the process has ended; false after the deadline. */
export async function hasEnded(id: ProcessId, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  for (let waitMs = 2; isRunning(id); waitMs = Math.min(2 * waitMs, 50)) {
    if (performance.now() >= deadline) return false;
    await sleep(waitMs);
  }
  return true;
}

/** Sends it the signal, unless it has ended. */
export function kill(id: ProcessId, signal: NodeJS.Signals): void {
  if (!isRunning(id)) return;
  try {
    process.kill(id.pid, signal);
  } catch {
    // It ended meanwhile.
  }
}

/** A variable of the environment that a process was started with; undefined too if it may not be looked at. */
export function environmentOf(pid: number | string, name: string): string | undefined {
  const entries = readProc(`/proc/${pid}/environ`)?.split("\0");
  return entries?.find((entry) => entry.startsWith(`${name}=`))?.slice(name.length + 1);
}

function readProc(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/** State and start time (proc_pid_stat(5)); the command's name before them may hold anything. */
function statOf(pid: number): { state: string; startTime: string } | undefined {
  const text = readProc(`/proc/${pid}/stat`);
  if (text === undefined) return undefined;
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { state: fields[0], startTime: fields[19] };
}
