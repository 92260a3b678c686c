/**
 * Which disk a path leads to, now and after a reboot.
 *
 * Within one boot the numbers of devices and inodes tell. After another boot device numbers may have changed
 * (what was dm-3 may be another volume); then a device is known by what it says of itself, a file by its inode.
 */
import { type BigIntStats, readFileSync, realpathSync, statSync } from "node:fs";
import { bootId } from "../lib/process-id.ts";

export interface KnownDisk {
  /** Device and inode of a file, or the device number; good within one boot. */
  readonly identity: string;
  /** Good in every boot; "" if the device tells nothing of itself. */
  readonly stableId: string;
  readonly bootId: string;
}

export function knownDisk(path: string): KnownDisk {
  const stats = statSync(path, { bigint: true });
  return { identity: diskIdentity(stats), stableId: stableId(stats), bootId: bootId() };
}

/** "unknown": the device has nothing by which it could be known after a reboot. */
export function compareDisk(known: KnownDisk, path: string): "same" | "different" | "unknown" {
  const now = knownDisk(path);
  if (known.bootId === now.bootId) return known.identity === now.identity ? "same" : "different";
  if (known.stableId === "" && now.stableId === "") return "unknown";
  return known.stableId === now.stableId ? "same" : "different";
}

/** Whether another disk has the path now, also one that was given the number of the known one in this boot. */
export function isOtherDisk(known: KnownDisk, path: string): boolean {
  if (compareDisk(known, path) === "different") return true;
  return known.bootId === bootId() && known.stableId !== knownDisk(path).stableId;
}

/** One disk, whatever path leads to it: the device number of a device, device and inode of a file. */
export function diskIdentity(stats: BigIntStats): string {
  return stats.isBlockDevice()
    ? `dev:${deviceName(stats.rdev)}`
    : `file:${deviceName(stats.dev)}:${stats.ino}`;
}

/** "major:minor" as /sys and mountinfo write it (glibc's makedev(3) taken apart). */
export function deviceName(number: bigint): string {
  const major = ((number >> 8n) & 0xfffn) | ((number >> 32n) & ~0xfffn);
  const minor = (number & 0xffn) | ((number >> 12n) & ~0xffn);
  return `${major}:${minor}`;
}

/** What a device says of itself, below its folder in /sys. */
const selfDescriptions = [
  "dm/uuid",
  "md/uuid",
  "wwid",
  "device/wwid",
  "serial",
  "device/serial",
  "loop/backing_file",
];

function stableId(stats: BigIntStats): string {
  if (!stats.isBlockDevice()) return `inode:${stats.ino}`;
  let folder: string;
  try {
    folder = realpathSync(`/sys/dev/block/${deviceName(stats.rdev)}`);
  } catch {
    return "";
  }
  const partition = contentOf(`${folder}/partition`);
  const device = partition === "" ? folder : `${folder}/..`;
  const found = selfDescriptions.map((name) => contentOf(`${device}/${name}`)).find((text) => text !== "");
  return found === undefined ? "" : `${found}${partition === "" ? "" : ` partition ${partition}`}`;
}

function contentOf(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "";
  }
}
