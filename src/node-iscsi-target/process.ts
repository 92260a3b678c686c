/** The processes of this room: ending them, finding them, and how one of them opened a file. */
import { type BigIntStats, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { environmentOf, hasEnded, identify, isRunning, kill, type ProcessId } from "../lib/process-id.ts";

export { hasEnded, identify, isRunning, type ProcessId } from "../lib/process-id.ts";

function readProc(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/** SIGKILL, which is safe: tgtd has no state worth keeping. tgtd ignores SIGTERM. */
export async function killProcess(id: ProcessId): Promise<void> {
  kill(id, "SIGKILL");
  await hasEnded(id, 10_000);
}

/** In the environment of a tgtd: the folder it was started in, which tells even where that was removed. */
export const folderMark = "NODE_ISCSI_TARGET_FOLDER";

/** tgtd processes that run in one of these folders, or were started there: nobody else's, since they are private. */
export function daemonsIn(folders: readonly string[]): ProcessId[] {
  const found: ProcessId[] = [];
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name) || readProc(`/proc/${name}/comm`)?.trim() !== "tgtd") continue;
    if (!folders.includes(cwdOf(name) ?? "") && !folders.includes(environmentOf(name, folderMark) ?? "")) {
      continue;
    }
    const id = identify(Number(name));
    if (id !== undefined && isRunning(id)) found.push(id);
  }
  return found;
}

function cwdOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return undefined; // Another user's, or gone.
  }
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
