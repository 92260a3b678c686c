/**
 * What tells hosts apart: a random id that a state folder keeps. Names will not do: one name is another host on
 * another machine, one machine has several names, and two state folders on it are two hosts.
 */
import { randomBytes } from "node:crypto";
import { linkSync, rmSync } from "node:fs";
import { join } from "node:path";
import { readFileLimited, syncFolder, writeFileAtomic } from "../lib/atomic-file.ts";
import { errnoCode } from "../lib/errors.ts";

/** In the state folder. */
export const hostIdName = "host-id";
const format = /^[0-9a-f]{32}$/;
const maxBytes = 64;

/** 32 hex digits; null: it has none yet, so nothing was ever begun here, or it cannot be read. */
export function readHostId(stateFolder: string): string | null {
  try {
    const bytes = readFileLimited(join(stateFolder, hostIdName), maxBytes);
    const text = Buffer.from(bytes ?? []).toString().trim();
    return format.test(text) ? text : null;
  } catch {
    return null;
  }
}

/** Makes it at first need; whoever comes second takes what is there. Throws the system's error. */
export function ensureHostId(stateFolder: string): string {
  const known = readHostId(stateFolder);
  if (known !== null) return known;
  const path = join(stateFolder, hostIdName);
  const made = join(stateFolder, `.${hostIdName}.${randomBytes(6).toString("hex")}`);
  writeFileAtomic(made, Buffer.from(`${randomBytes(16).toString("hex")}\n`));
  try {
    try {
      linkSync(made, path);
    } catch (error) {
      if (errnoCode(error) !== "EEXIST") throw error;
      // One that cannot be read names nobody.
      if (readHostId(stateFolder) === null) writeFileAtomic(path, readFileLimited(made, maxBytes)!);
    }
    syncFolder(stateFolder);
  } finally {
    rmSync(made, { force: true });
  }
  return readHostId(stateFolder)!;
}
