/** The disk that is to be exported, as it is before tgtd sees it. */
import { type BigIntStats, readFileSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { TgtError } from "./errors.ts";

/** A path; as bytes where it is not UTF-8 (under Node; Deno has no such paths). */
export type DiskPath = string | Uint8Array;

export interface Disk {
  /** Absolute. */
  readonly path: string | Buffer;
  readonly stats: BigIntStats;
  readonly sizeBytes: number;
  /** Logical block size: the device's own, 512 for a file. */
  readonly blockBytes: 512 | 4096;
}

/** Throws TgtError "invalidArgument" for bytes that the runtime cannot pass on. */
export function absolutePath(path: DiskPath): string | Buffer {
  if (typeof path === "string") return resolve(path);
  const bytes = Buffer.from(path);
  const text = bytes.toString();
  if (Buffer.from(text).equals(bytes)) return resolve(text);
  if ("Deno" in globalThis) {
    // Deno would replace the bytes, and another file might have the name that comes out.
    throw new TgtError("invalidArgument", `the path ${JSON.stringify(text)} is not UTF-8, as Deno needs it`);
  }
  return bytes[0] === 0x2f ? bytes : Buffer.concat([Buffer.from(`${process.cwd()}/`), bytes]);
}

export const describePath = (path: string | Buffer) => JSON.stringify(path.toString());

/** Size and block size. Throws TgtError "badDisk" or "permission". */
export function inspectDisk(diskPath: DiskPath, wantedBlockBytes?: 512 | 4096): Disk {
  const path = absolutePath(diskPath);
  const name = describePath(path);
  const stats = statDisk(path, name);
  if (!stats.isFile() && !stats.isBlockDevice()) {
    const what = stats.isDirectory() ? "a directory" : "neither a file nor a block device";
    throw new TgtError("badDisk", `${name} is ${what}`, { hint: "Give a raw disk image or a block device." });
  }
  const found = stats.isFile()
    ? { sizeBytes: Number(stats.size), blockBytes: 512 }
    : blockDevice(stats, name);
  const blockBytes = wantedBlockBytes ?? found.blockBytes;
  if (blockBytes !== 512 && blockBytes !== 4096) {
    throw new TgtError(
      "badDisk",
      `${name}: blocks of ${blockBytes} bytes are not supported (512 or 4096 are)`,
    );
  }
  if (blockBytes < found.blockBytes) {
    throw new TgtError("badDisk", `${name} has blocks of ${found.blockBytes} bytes, not ${blockBytes}`);
  }
  if (found.sizeBytes === 0) throw new TgtError("badDisk", `${name} is empty`);
  if (found.sizeBytes % blockBytes !== 0) {
    throw new TgtError(
      "badDisk",
      `${name} is ${found.sizeBytes} bytes long, which is not a multiple of ${blockBytes}: its end could not be read`,
      { hint: `Lengthen it to ${Math.ceil(found.sizeBytes / blockBytes) * blockBytes} bytes (truncate -s).` },
    );
  }
  return { path, stats, sizeBytes: found.sizeBytes, blockBytes };
}

function statDisk(path: string | Buffer, name: string): BigIntStats {
  try {
    return statSync(path, { bigint: true });
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === "EACCES") throw new TgtError("permission", `${name}: no permission to reach it`, { cause });
    if (code === "ENOENT") throw new TgtError("badDisk", `${name} does not exist`, { cause });
    throw new TgtError("badDisk", `${name}: ${(cause as Error).message}`, { cause });
  }
}

/** From /sys, where no permission to open the device is needed. */
function blockDevice(stats: BigIntStats, name: string): { sizeBytes: number; blockBytes: number } {
  const { major, minor } = deviceNumbers(stats.rdev);
  const folder = `/sys/dev/block/${major}:${minor}`;
  const read = (path: string) => Number(readFileSync(`${folder}/${path}`, "utf8"));
  try {
    const sizeBytes = 512 * read("size");
    try {
      return { sizeBytes, blockBytes: read("queue/logical_block_size") };
    } catch {
      // A partition's queue is its disk's.
      return { sizeBytes, blockBytes: read("../queue/logical_block_size") };
    }
  } catch (cause) {
    throw new TgtError("badDisk", `${name}: the kernel does not tell its size (${folder})`, { cause });
  }
}

/** makedev(3), as Linux encodes it. */
export function deviceNumbers(rdev: bigint): { major: number; minor: number } {
  return {
    major: Number(((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xfffff000n)),
    minor: Number((rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n)),
  };
}
