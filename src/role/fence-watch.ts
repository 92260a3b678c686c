/**
 * Whether a fenced disk stays as it was: its size, its modification time or the sectors written to it, and who
 * has it open for writing. What is seen is reported, not prevented.
 */
import { type BigIntStats, readFileSync, statSync } from "node:fs";
import { messageOf } from "../lib/errors.ts";
import { bootId } from "../lib/process-id.ts";
import { place, sizeOf } from "./disk-facts.ts";
import { deviceName, isOtherDisk, type KnownDisk } from "./disk-identity.ts";
import { describeUsers, diskUsers } from "./disk-users.ts";
import type { DiskUser } from "./messages.ts";
import type { Baseline, FenceRecord } from "./source-journal.ts";

/** Looking through all processes takes some ms per hundred of them; drivers ask several times a second. */
const usersKeptMs = 2000;

/** The disk as it is now. What was written to it before must be durable: a write-back counts as a write. */
export function takeBaseline(path: string): Baseline {
  const stats = statSync(path, { bigint: true });
  return {
    bootId: bootId(),
    sizeBytes: sizeBytesOf(path, stats),
    file: watchedFile(path, stats),
    changedSectors: stats.isBlockDevice() ? changedSectors(stats) : null,
  };
}

export interface FencedDisk extends KnownDisk {
  readonly path: string;
  readonly fence: FenceRecord | null;
}

/** Looks at fenced disks; one for as long as a role lives. */
export class FenceWatch {
  readonly #users = new Map<string, { readonly atMs: number; readonly users: readonly DiskUser[] }>();

  /** What endangers the disk's content, in words; null if nothing is seen, or the disk is not fenced. */
  danger(disk: FencedDisk, exceptPids: readonly number[]): string | null {
    const baseline = disk.fence?.baseline;
    if (baseline === null || baseline === undefined) return null;
    const where = `the source ${place(disk.path)}`;
    try {
      if (isOtherDisk(disk, disk.path)) return `${where} was replaced: another disk is at its path`;
      const changes = changesSince(disk.path, baseline);
      const users = this.#usersOf(disk, exceptPids);
      const found = [
        ...(changes.length > 0 ? [`was changed after it was fenced: ${changes.join(", ")}`] : []),
        ...(users.length > 0 ? [`can be written by ${describeUsers(users)}`] : []),
      ];
      return found.length > 0 ? `${where} ${found.join("; it ")}` : null;
    } catch (error) {
      return `${where} cannot be looked at any more (${messageOf(error)})`;
    }
  }

  #usersOf(disk: FencedDisk, exceptPids: readonly number[]): readonly DiskUser[] {
    const known = this.#users.get(disk.path);
    const nowMs = performance.now();
    if (known !== undefined && nowMs - known.atMs < usersKeptMs) return known.users;
    const users = diskUsers(disk.path, exceptPids);
    this.#users.set(disk.path, { atMs: nowMs, users });
    return users;
  }
}

/** How the content of a disk has changed since it was fenced, in words; null if it has not. */
export function changeOf(disk: FencedDisk): string | null {
  const where = `the source ${place(disk.path)}`;
  const baseline = disk.fence?.baseline;
  if (baseline === null || baseline === undefined) {
    return `${where} is not fenced: nobody knows if it changed`;
  }
  try {
    if (isOtherDisk(disk, disk.path)) return `${where} was replaced: another disk is at its path`;
    const changes = changesSince(disk.path, baseline);
    return changes.length > 0 ? `${where} was changed after it was fenced: ${changes.join(", ")}` : null;
  } catch (error) {
    return `${where} cannot be looked at any more (${messageOf(error)})`;
  }
}

function changesSince(path: string, baseline: Baseline): string[] {
  const stats = statSync(path, { bigint: true });
  const changes: string[] = [];
  const sizeBytes = sizeBytesOf(path, stats);
  if (sizeBytes !== baseline.sizeBytes) {
    changes.push(`its size was ${baseline.sizeBytes} bytes and is ${sizeBytes}`);
  }
  changes.push(...fileChanges(path, baseline.file, watchedFile(path, stats)));
  const sectors = sectorsSince(baseline, stats);
  if (sectors > 0) changes.push(`${sectors * 512} bytes were written to or discarded from it`);
  return changes;
}

function fileChanges(path: string, then: Baseline["file"], now: Baseline["file"]): string[] {
  if (then === null) return [];
  const what = then.path === path ? "its" : `the ${then.path} behind it: its`;
  if (now === null || now.path !== then.path) return [`${then.path} is not behind it any more`];
  if (now.mtimeNs === then.mtimeNs && now.sizeBytes === then.sizeBytes) return [];
  const at = new Date(Number(BigInt(now.mtimeNs) / 1_000_000n)).toISOString();
  return [`${what} modification time changed, at ${at}`];
}

/** After another boot, or if the device was made anew, its counter has begun at zero. */
function sectorsSince({ bootId: then, changedSectors: before }: Baseline, stats: BigIntStats): number {
  if (before === null) return 0;
  const now = changedSectors(stats);
  return then === bootId() && now >= before ? now - before : now;
}

function sizeBytesOf(path: string, stats: BigIntStats): number {
  return stats.isFile() ? Number(stats.size) : sizeOf(path).sizeBytes;
}

/** The disk itself if it is a file, or the file behind a loop device: that may be written directly. */
function watchedFile(path: string, stats: BigIntStats): Baseline["file"] {
  const file = stats.isFile() ? path : backingFile(stats);
  if (file === null) return null;
  const { size, mtimeNs } = stats.isFile() ? stats : statSync(file, { bigint: true });
  return { path: file, sizeBytes: Number(size), mtimeNs: String(mtimeNs) };
}

function backingFile(stats: BigIntStats): string | null {
  try {
    const text = readFileSync(`/sys/dev/block/${deviceName(stats.rdev)}/loop/backing_file`, "utf8");
    return text.replace(/\n$/, "");
  } catch {
    return null;
  }
}

/**
 * Written and discarded sectors of 512 bytes, from the kernel's statistics (Documentation/block/stat.rst). A
 * disk's count has those of its partitions in it; a partition's has only what went through the partition.
 */
function changedSectors(stats: BigIntStats): number {
  const fields = readFileSync(`/sys/dev/block/${deviceName(stats.rdev)}/stat`, "utf8").trim().split(/\s+/);
  const [written, discarded] = [6, 13].map((at) => Number(fields[at] ?? 0));
  return written + discarded;
}
