/** The local disk before the engine has it: what is there, making it, and taking it away again. */
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  openSync,
  statfsSync,
  statSync,
  truncateSync,
  unlinkSync,
} from "node:fs";
import { dirname, resolve } from "node:path";
import { execa } from "execa";
import { syncFolder } from "../lib/atomic-file.ts";
import { errnoCode, FailedError, messageOf, PreconditionError } from "../lib/errors.ts";
import { formatSize } from "../lib/units.ts";
import { cannotTell, existing, newFilePath, place, sizeOf, unreachable } from "./disk-facts.ts";
import { compareDisk, diskIdentity, type KnownDisk } from "./disk-identity.ts";
import { describeUsers, diskUsers, standsOn } from "./disk-users.ts";

export interface LocalFile {
  readonly path: string;
  /** Null if there is nothing yet. */
  readonly identity: string | null;
  readonly origin: "made" | "empty" | "existing";
  readonly freeBytes: number | null;
}

/** Checks whether a disk of `sizeBytes` may go to `path`. Changes nothing; every refusal says what to do. */
export async function inspectDestination(
  path: string,
  sizeBytes: number,
  isForced: boolean,
): Promise<LocalFile> {
  if (path.endsWith("/")) {
    throw new PreconditionError(`the destination ${place(resolve(path))} is named as a folder`, {
      hint: "name the file to be made in it, or a block device",
    });
  }
  if (isNothingAt(path)) {
    const real = newFilePath(path);
    return { path: real, identity: null, origin: "made", freeBytes: freeBytesAt(dirname(real)) };
  }
  const real = existing(path, "destination");
  const stats = statSync(real, { bigint: true });
  refuseUsed(real);
  closeSync(openForUse(real, false));
  const identity = diskIdentity(stats);
  if (stats.isFile() && stats.size === 0n) {
    return { path: real, identity, origin: "empty", freeBytes: freeBytesAt(dirname(real)) };
  }
  checkSize(real, stats.isFile() ? Number(stats.size) : sizeOf(real).sizeBytes, sizeBytes);
  if (!isForced) await refuseContent(real, stats.isFile());
  return { path: real, identity, origin: "existing", freeBytes: null };
}

/** The disk's identity; null if there is nothing yet, or it cannot be reached. */
export function identityAt(path: string): string | null {
  try {
    return diskIdentity(statSync(path, { bigint: true }));
  } catch {
    return null;
  }
}

/** Throws PreconditionError if one of the disks is (a part of, or made of) the other. */
export function refuseSameDisk(
  path: string,
  source: { readonly identity: string; readonly standsOn: readonly string[] },
): void {
  const identity = identityAt(path);
  if (identity === null) return;
  const isSame = identity === source.identity;
  const overlaps = source.standsOn.includes(identity) || standsOn(path).includes(source.identity);
  if (!isSame && !overlaps) return;
  const where = place(resolve(path));
  throw new PreconditionError(
    isSame
      ? `source and destination are the same disk: ${where}`
      : `source and destination share their storage: the destination ${where} lies on the source's disk, or that on it`,
    { hint: "name another destination" },
  );
}

/** Nothing, not even a link to nothing. */
function isNothingAt(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) === undefined;
  } catch (cause) {
    throw unreachable(path, "destination", cause);
  }
}

/** Makes the file (mode 0600) or gives an empty one its size; durable. Returns its identity. */
export function makeLocalFile({ path, origin }: LocalFile, sizeBytes: number): string {
  if (origin === "existing") return diskIdentity(statSync(path, { bigint: true }));
  const isNew = origin === "made";
  const descriptor = openForUse(path, isNew);
  try {
    try {
      ftruncateSync(descriptor, sizeBytes);
      fsyncSync(descriptor);
    } catch (cause) {
      if (isNew) unlinkSync(path);
      throw new PreconditionError(
        `${place(path)} cannot be given ${formatSize(sizeBytes)}: ${errnoCode(cause) ?? messageOf(cause)}`,
        { hint: "the file system may be too small for, or not know, sparse files of this size", cause },
      );
    }
    syncFolder(dirname(path));
    return diskIdentity(fstatSync(descriptor, { bigint: true }));
  } finally {
    closeSync(descriptor);
  }
}

/** Makes durable what is in the page cache of a disk. */
export function syncDisk(path: string): void {
  const descriptor = openSync(path, "r+");
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** As it was before: what was made here goes. Nothing happens if the file is another one by now. */
export function unmakeLocalFile(path: string, identity: string, origin: LocalFile["origin"]): void {
  if (origin === "existing" || !existsSync(path)) return;
  const stats = statSync(path, { bigint: true });
  // Cut short before its identity was written down: then it is ours only if nothing is in it.
  if (identity === "" ? stats.blocks !== 0n : !identity.endsWith(`:${stats.ino}`)) return;
  if (origin === "made") {
    unlinkSync(path);
    syncFolder(dirname(path));
  } else {
    truncateSync(path, 0);
  }
}

/** Whether the path leads to the disk that the engine has open, as far as can be told. */
export function isInPlace(path: string, known: KnownDisk): boolean {
  try {
    return compareDisk(known, path) !== "different";
  } catch {
    return false;
  }
}

/** The engine must not leave while it has the only way to the data. */
export function displaced(path: string): FailedError {
  return new FailedError(
    `the destination ${place(path)} was removed, moved or replaced while it was in use`,
    {
      hint:
        "the data is only behind the volume's NBD socket now: bring the file back to its path, or copy the volume " +
        "from there (nbdcopy) before you end anything; then dlsm resume goes on",
    },
  );
}

/**
 * Throws PreconditionError unless the path still leads to the disk that was attached, and nobody uses it.
 * `isForced`: a device that tells nothing by which it could be known after a reboot is taken for the one.
 */
export function checkSameFile(path: string, known: KnownDisk, sizeBytes: number, isForced: boolean): void {
  const real = existing(path, "destination");
  const verdict = compareDisk(known, real);
  if (verdict === "unknown" && !isForced) throw cannotTell(real);
  const hasBytes = statSync(real).isFile() ? statSync(real).size : sizeOf(real).sizeBytes;
  if (verdict === "different" || hasBytes < sizeBytes) {
    throw new PreconditionError(`${place(path)} is no longer the disk that was attached`, {
      hint: "bring the disk back to this path: what was written since the hand-off is only there",
    });
  }
  refuseUsed(real);
}

function refuseUsed(path: string): void {
  const users = diskUsers(path);
  if (users.length === 0) return;
  throw new PreconditionError(`the destination ${place(path)} is in use: ${describeUsers(users)}`, {
    hint: "stop who uses it, or name another destination",
  });
}

function openForUse(path: string, isNew: boolean): number {
  try {
    return openSync(path, isNew ? "wx+" : "r+", 0o600);
  } catch (cause) {
    const code = errnoCode(cause);
    throw new PreconditionError(
      isNew
        ? `the destination ${place(path)} cannot be made: ${code ?? messageOf(cause)}`
        : code === "EACCES" || code === "EPERM"
        ? `no permission to write the destination ${place(path)}`
        : `the destination ${place(path)} cannot be opened for writing: ${code ?? messageOf(cause)}`,
      {
        hint: code === "ENOSPC" || code === "EDQUOT"
          ? "make space on its file system, or name another destination"
          : "run dlsm as root or as a user who can write there, or name another destination",
        cause,
      },
    );
  }
}

function checkSize(path: string, hasBytes: number, needsBytes: number): void {
  if (hasBytes >= needsBytes) return;
  throw new PreconditionError(
    `the destination ${place(path)} is too small: ${formatSize(hasBytes)} (${hasBytes} bytes), ` +
      `where the source has ${formatSize(needsBytes)} (${needsBytes} bytes)`,
    { hint: "enlarge it, or name another destination" },
  );
}

async function refuseContent(path: string, isFile: boolean): Promise<void> {
  if (isFile) {
    throw new PreconditionError(`the destination ${place(path)} exists and is not empty`, {
      hint: "name a new file, or overwrite this one with --force",
    });
  }
  const { exitCode, stdout } = await execa(
    "blkid",
    ["-p", "-o", "value", "-s", "TYPE", "-s", "PTTYPE", path],
    {
      reject: false,
      extendEnv: true,
      env: { PATH: `${process.env.PATH ?? ""}:/usr/sbin:/sbin`, LC_ALL: "C" },
    },
  );
  // 2: nothing was found; anything else but 0: it could not be told.
  if (exitCode === 2) return;
  const found = exitCode === 0
    ? `carries ${stdout.trim().replaceAll(/\s+/g, ", ") || "a signature"}`
    : undefined;
  throw new PreconditionError(
    found === undefined
      ? `what is on the destination ${place(path)} cannot be told (blkid failed)`
      : `the destination ${place(path)} is not empty: it ${found}`,
    { hint: "name another device, wipe it (wipefs -a), or overwrite it with --force" },
  );
}

function freeBytesAt(folder: string): number {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}
