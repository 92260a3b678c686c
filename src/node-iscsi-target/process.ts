/** Processes as /proc shows them: which one is ours, whether it still runs, how it opened a file. */
import { type BigIntStats, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

/** A process, told apart from a later one with the same pid. */
export interface ProcessId {
  readonly pid: number;
  /** Clock ticks since boot, from /proc/PID/stat. */
  readonly startTime: string;
  readonly bootId: string;
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
  return { state: fields[0]!, startTime: fields[19]! };
}

const bootId = () => readProc("/proc/sys/kernel/random/boot_id")?.trim() ?? "";

/** undefined: there is no such process. */
export function identify(pid: number): ProcessId | undefined {
  const stat = statOf(pid);
  return stat && { pid, startTime: stat.startTime, bootId: bootId() };
}

export function isRunning(id: ProcessId): boolean {
  const stat = statOf(id.pid);
  return stat !== undefined && stat.state !== "Z" && stat.state !== "X" &&
    stat.startTime === id.startTime && id.bootId === bootId();
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

/** SIGKILL, which is safe: tgtd has no state worth keeping. tgtd ignores SIGTERM. */
export async function killProcess(id: ProcessId): Promise<void> {
  if (!isRunning(id)) return;
  try {
    process.kill(id.pid, "SIGKILL");
  } catch {
    // It ended meanwhile.
  }
  await hasEnded(id, 10_000);
}

/** tgtd processes that run in `folder`: nobody else's, since the folder is private. */
export function daemonsIn(folder: string): ProcessId[] {
  const found: ProcessId[] = [];
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name) || readProc(`/proc/${name}/comm`)?.trim() !== "tgtd") continue;
    try {
      if (readlinkSync(`/proc/${name}/cwd`) !== folder) continue;
    } catch {
      continue; // Another user's, or gone.
    }
    const id = identify(Number(name));
    if (id !== undefined && isRunning(id)) found.push(id);
  }
  return found;
}

/** O_ACCMODE of open(2). */
const accessModeMask = 0o3;

/**
 * How a process holds a disk: the access modes of all its descriptors of that file or block device. Throws
 * where /proc/PID/fd cannot be read.
 */
export function accessModes(pid: number, disk: BigIntStats): number[] {
  const modes: number[] = [];
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    let stats: BigIntStats;
    try {
      stats = statSync(`/proc/${pid}/fd/${fd}`, { bigint: true });
    } catch {
      continue; // Closed meanwhile.
    }
    const same = disk.isBlockDevice()
      ? stats.isBlockDevice() && stats.rdev === disk.rdev
      : stats.dev === disk.dev && stats.ino === disk.ino;
    const flags = same ? /^flags:\s*([0-7]+)$/m.exec(readProc(`/proc/${pid}/fdinfo/${fd}`) ?? "") : null;
    if (flags !== null) modes.push(parseInt(flags[1]!, 8) & accessModeMask);
  }
  return modes;
}
