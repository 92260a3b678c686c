/** What a path is, before anything is done with it; every refusal says what and what to do. */
import { accessSync, closeSync, constants, openSync, readSync, realpathSync, statSync } from "node:fs";
import { hostname } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { errnoCode, messageOf, PreconditionError } from "../lib/errors.ts";
import { inspectDisk, isTgtError } from "../node-iscsi-target/mod.ts";
import { diskIdentity } from "./disk-identity.ts";
import { diskUsers, standsOn } from "./disk-users.ts";
import type { InspectedSource } from "./messages.ts";

/** "host:path" for messages. */
export function place(path: string): string {
  return `${hostname()}:${path}`;
}

export function inspectSource(path: string): InspectedSource & { readonly direct: boolean } {
  const real = existing(path, "source");
  const stats = statSync(real, { bigint: true });
  try {
    accessSync(real, constants.R_OK);
  } catch (cause) {
    throw new PreconditionError(`no permission to read the source ${place(real)}`, {
      hint: "run dlsm as root, or as a user who can read it",
      cause,
    });
  }
  // An image's own length says nothing about the disk in it.
  refuseFormats(real);
  const disk = sizeOf(real);
  return {
    host: hostname(),
    path: real,
    identity: diskIdentity(stats),
    standsOn: standsOn(real),
    isFile: stats.isFile(),
    sizeBytes: disk.sizeBytes,
    // st_blocks counts 512 bytes each, with what the file system keeps beside the data.
    allocatedBytes: stats.isFile() ? Math.min(512 * Number(stats.blocks), disk.sizeBytes) : disk.sizeBytes,
    blockBytes: disk.blockBytes,
    users: diskUsers(real),
    direct: disk.sizeBytes % 4096 === 0 && canReadDirect(real),
  };
}

/** The path, a file's without symbolic links. Throws if nothing is there, or it is neither a file nor a block device. */
export function existing(path: string, what: "source" | "destination"): string {
  let real: string;
  try {
    real = realpathSync(path);
  } catch (cause) {
    throw unreachable(path, what, cause);
  }
  const stats = statSync(real);
  if (stats.isDirectory()) {
    throw new PreconditionError(`the ${what} ${place(real)} is a directory`, {
      hint: `name a raw disk image${what === "destination" ? " to be made in it" : ""}, or a block device`,
    });
  }
  if (!stats.isFile() && !stats.isBlockDevice()) {
    throw new PreconditionError(`the ${what} ${place(real)} is neither a file nor a block device`, {
      hint: "name a raw disk image or a block device",
    });
  }
  // A device by the name it was given: what /dev/vg/lv leads to may have another number after a reboot.
  return stats.isBlockDevice() ? resolve(path) : real;
}

/** The path that a new file would have: its folder without symbolic links. */
export function newFilePath(path: string): string {
  let folder: string;
  try {
    folder = realpathSync(dirname(path));
  } catch (cause) {
    throw unreachable(dirname(path), "folder of the destination", cause);
  }
  // A device's name that was mistyped; a file there would be in memory.
  if (`${folder}/`.startsWith("/dev/") && !`${folder}/`.startsWith("/dev/shm/")) {
    throw new PreconditionError(`there is no device ${place(path)}`, {
      hint:
        "check its name, and make it first (lvcreate, for instance); new files are made outside of /dev only",
    });
  }
  try {
    accessSync(folder, constants.W_OK | constants.X_OK);
  } catch (cause) {
    throw new PreconditionError(`no permission to make the destination in ${place(folder)}`, {
      hint: "run dlsm as root or as a user who can write there, or name another folder",
      cause,
    });
  }
  return join(folder, basename(path));
}

export function sizeOf(path: string): { sizeBytes: number; blockBytes: 512 | 4096 } {
  try {
    return inspectDisk(path);
  } catch (error) {
    if (!isTgtError(error)) throw error;
    // Its message begins with the path.
    const message = error.message.replace(JSON.stringify(path), place(path));
    throw new PreconditionError(message, {
      hint: error.hint ?? "name a raw disk image, or a block device",
      cause: error,
    });
  }
}

export function unreachable(path: string, what: string, cause: unknown): PreconditionError {
  const where = place(resolve(path));
  const code = errnoCode(cause);
  if (code === "ENOENT" || code === "ENOTDIR") {
    return new PreconditionError(`the ${what} ${where} does not exist`, {
      hint: "check its path, and whether what it is on is mounted",
      cause,
    });
  }
  if (code === "EACCES") {
    return new PreconditionError(`no permission to reach the ${what} ${where}`, {
      hint: "run dlsm as root, or as a user who may enter every folder of the path",
      cause,
    });
  }
  return new PreconditionError(`the ${what} ${where} cannot be used: ${messageOf(cause)}`, {
    hint: "check its path",
    cause,
  });
}

/** Magic numbers of image formats that hold a disk, but are none. */
const formats = [
  { name: "qcow2", at: 0, magic: "QFI\xfb" },
  { name: "vmdk", at: 0, magic: "KDMV" },
  { name: "vhdx", at: 0, magic: "vhdxfile" },
  { name: "vpc", at: 0, magic: "conectix" },
  { name: "qed", at: 0, magic: "QED\0" },
  { name: "vdi", at: 64, magic: "\x7f\x10\xda\xbe" },
] as const;

function refuseFormats(path: string): void {
  const head = Buffer.alloc(4096);
  const descriptor = openSync(path, "r");
  try {
    readSync(descriptor, head, 0, head.length, 0);
  } finally {
    closeSync(descriptor);
  }
  for (const { name, at, magic } of formats) {
    if (head.toString("latin1", at, at + magic.length) !== magic) continue;
    throw new PreconditionError(`the source ${place(path)} is a ${name} image, not a raw disk`, {
      hint: `convert it first: qemu-img convert -f ${name} -O raw ${shellWord(path)} ${
        shellWord(`${path}.raw`)
      }`,
    });
  }
}

/** As it can be pasted into a shell. */
function shellWord(text: string): string {
  return /^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function canReadDirect(path: string): boolean {
  try {
    closeSync(openSync(path, constants.O_RDONLY | constants.O_DIRECT));
    return true;
  } catch {
    return false;
  }
}

/** The disk may be another one since the reboot, and nothing tells. */
export function cannotTell(path: string): PreconditionError {
  return new PreconditionError(
    `${
      place(path)
    } has neither a serial number nor another name of its own: whether it is the same disk as ` +
      "before the reboot cannot be told",
    { hint: "make sure that it is, then give dlsm resume with --force" },
  );
}
