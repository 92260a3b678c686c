/**
 * Small files that are either the old or the new whole, whatever happens (process killed, power lost).
 * All calls are synchronous: they belong to control, never to the data path.
 */
import {
  closeSync,
  fstatSync,
  fsyncSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { randomBytes } from "node:crypto";
import { basename, dirname, join } from "node:path";
import { errnoCode } from "./errors.ts";

/**
 * Replaces the file at `path` with `bytes`, mode 0600, durably: when this returns, the new content survives a
 * power cut. Throws the system's error; the old file is then untouched and nothing is left beside it.
 */
export function writeFileAtomic(path: string, bytes: Uint8Array): void {
  const folder = dirname(path);
  const temporary = join(folder, `.${basename(path)}.${randomBytes(6).toString("hex")}.tmp`);
  try {
    const file = openSync(temporary, "wx", 0o600);
    try {
      for (let done = 0; done < bytes.length;) done += writeSync(file, bytes, done);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
  syncFolder(folder);
}

/**
 * Makes or overwrites a file ("wx": only makes it) that is private (mode 0600) from its first moment: with a
 * `mode` for writeFileSync Deno makes it readable for others, and changes that afterwards. Neither atomic nor
 * durable. Throws the system's error.
 */
export function writePrivateFile(path: string, content: string, flag: "w" | "wx" = "w"): void {
  const file = openSync(path, flag, 0o600);
  try {
    writeFileSync(file, content);
  } finally {
    closeSync(file);
  }
}

/**
 * The content of the file, or undefined if there is none. Throws RangeError beyond `maxBytes`, or the
 * system's error (EISDIR for what is no regular file).
 */
export function readFileLimited(path: string, maxBytes: number): Uint8Array | undefined {
  let file: number;
  try {
    file = openSync(path, "r");
  } catch (error) {
    if (errnoCode(error) === "ENOENT") return undefined;
    throw error;
  }
  try {
    const { size } = fstatSync(file);
    if (size > maxBytes) throw new RangeError(`${size} bytes where at most ${maxBytes} are expected`);
    // One byte more than its size shows a file that grew meanwhile.
    const bytes = new Uint8Array(size + 1);
    let length = 0;
    while (length < bytes.length) {
      const count = readSync(file, bytes, length, bytes.length - length, null);
      if (count === 0) break;
      length += count;
    }
    if (length > size) throw new RangeError("the file grew while it was read");
    return bytes.subarray(0, length);
  } finally {
    closeSync(file);
  }
}

/** Removes the file durably. No error if there is none. */
export function removeFileDurably(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (errnoCode(error) === "ENOENT") return;
    throw error;
  }
  syncFolder(dirname(path));
}

/** Makes creations, renames and removals in the folder survive a power cut. */
export function syncFolder(path: string): void {
  const folder = openSync(path, "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}
