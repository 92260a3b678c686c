/** Where the roles keep what; both kinds of folders are private (0700). */
import { existsSync, readdirSync, readFileSync, renameSync, rmdirSync, rmSync } from "node:fs";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { syncFolder, writePrivateFile } from "../lib/atomic-file.ts";
import { errnoCode, messageOf, PreconditionError } from "../lib/errors.ts";
import { ensureFolder } from "../lib/paths.ts";
import { bootId } from "../lib/process-id.ts";
import { maxSocketPathBytes } from "../lib/unix-socket.ts";
import { ensureHostId } from "./host-id.ts";

export interface RoleFolders {
  /** Survives a reboot. */
  readonly state: string;
  /** Sockets and what belongs to the running processes. */
  readonly run: string;
}

export type RoleName = "source" | "destination";

/** The folder of one migration's role; not made yet. */
export function roleFolders(folders: RoleFolders, role: RoleName, id: string): RoleFolders {
  return {
    state: join(folders.state, role, id),
    run: join(folders.run, id, role === "source" ? "src" : "dst"),
  };
}

/**
 * Makes the folders of a role's new migration. The state folder gets its name when `writeJournal` has written
 * the journal into it, so that a kill at any moment leaves either a migration that can be told, or none.
 * Throws PreconditionError if they cannot be made.
 */
export function makeNewRoleFolders(
  { state, run }: RoleFolders,
  writeJournal: (folder: string) => void,
): void {
  sweep(dirname(state));
  const unnamed = unnamedOf(state);
  makeFolder(unnamed, "DLSM_STATE_DIR");
  try {
    ensureHostId(dirname(dirname(state)));
    writeJournal(unnamed);
  } catch (cause) {
    rmSync(unnamed, { recursive: true, force: true });
    throw noSpace(dirname(state), cause);
  }
  renameSync(unnamed, state);
  syncFolder(dirname(state));
  makeRunFolder({ state, run });
}

/** Gives the host its id, if it has none yet. Throws PreconditionError if that cannot be written. */
export function nameHost({ state }: RoleFolders): string {
  makeFolder(state, "DLSM_STATE_DIR");
  try {
    return ensureHostId(state);
  } catch (cause) {
    throw noSpace(state, cause);
  }
}

function noSpace(folder: string, cause: unknown): PreconditionError {
  const message = messageOf(cause);
  const what = message.includes(folder) ? message : `${folder} cannot be written: ${message}`;
  return new PreconditionError(`on ${hostname()}: ${what}`, {
    hint: `nothing was changed: make space on the file system of ${folder}, or name another state ` +
      "folder in DLSM_STATE_DIR",
    cause,
  });
}

/** The run folder of a migration, which a reboot takes away. Throws PreconditionError if it cannot be made. */
export function makeRunFolder({ state, run }: RoleFolders): void {
  makeFolder(run, "DLSM_RUN_DIR");
  try {
    if (ownerOf(run) !== state) writePrivateFile(join(run, ownerName), state);
  } catch {
    // No space left, perhaps: it only helps to tell what is left over.
  }
}

/** In a role's run folder: names its state folder, without whose journal the run folder is of no use. */
const ownerName = "state-folder";

/** The state folder that a role's run folder was made for; undefined if it does not say. */
export function ownerOf(run: string): string | undefined {
  try {
    return readFileSync(join(run, ownerName), "utf8");
  } catch {
    return undefined;
  }
}

function makeFolder(path: string, variable: string): void {
  try {
    ensureFolder({ path, isShared: false }, "folder", variable);
  } catch (error) {
    if (!(error instanceof PreconditionError)) throw error;
    const { message, hint } = error;
    throw new PreconditionError(`on ${hostname()}: ${message}`, { ...(hint && { hint }), cause: error });
  }
}

/** Throws PreconditionError if `longestSocket`, a path in the run folder, is longer than a socket's may be. */
export function checkRunFolder({ run }: RoleFolders, longestSocket: string): void {
  const excess = Buffer.byteLength(longestSocket) - maxSocketPathBytes;
  if (excess <= 0) return;
  throw new PreconditionError(`the run folder ${run} has too long a path for unix sockets in it`, {
    hint: `name one that is at least ${excess} bytes shorter in DLSM_RUN_DIR`,
  });
}

/** Removes the role's folders, and those above that are empty then. Its journal goes with its name, at once. */
export function removeRoleFolders(folders: RoleFolders, role: RoleName, id: string): void {
  const { state, run } = roleFolders(folders, role, id);
  removeFolder(run);
  removeIfEmpty(dirname(run));
  if (existsSync(state)) {
    sweep(dirname(state));
    renameSync(state, unnamedOf(state));
    syncFolder(dirname(state));
  }
  sweep(dirname(state));
  removeIfEmpty(dirname(state));
}

/** Ids of the migrations that have a state folder for the role. */
export function listIds(folders: RoleFolders, role: RoleName): string[] {
  const path = join(folders.state, role);
  return existsSync(path) ? readdirSync(path).filter((name) => !name.startsWith(".")).sort() : [];
}

/**
 * Throws if the record of `id` is not in the folder of its name: a folder or journal that was copied, or restored
 * to the wrong place, is not to be taken for another migration's.
 */
export function requireOwnFolder(id: string, state: string): void {
  if (basename(state) !== id) throw new Error(`it is the record of ${id}`);
}

/** A state folder before its migration begins and after it ended. */
function unnamedOf(state: string): string {
  return join(dirname(state), `.${basename(state)}`);
}

/** Removes what was left when somebody was killed while making or removing a state folder. */
function sweep(path: string): void {
  if (!existsSync(path)) return;
  for (const name of readdirSync(path).filter((each) => each.startsWith("."))) {
    rmSync(join(path, name), { recursive: true, force: true });
  }
}

/** Also while a driver notes something in it. */
function removeFolder(path: string): void {
  for (let triesLeft = 100;; triesLeft--) {
    try {
      rmSync(path, { recursive: true, force: true });
      return;
    } catch (error) {
      if (errnoCode(error) !== "ENOTEMPTY" || triesLeft === 0) throw error;
    }
  }
}

/** Somebody may make a folder in it at this moment: then it stays. */
function removeIfEmpty(path: string): void {
  if (!existsSync(path) || readdirSync(path).length > 0) return;
  try {
    rmdirSync(path);
  } catch (error) {
    if (!["ENOENT", "ENOTEMPTY", "EEXIST"].includes(errnoCode(error) ?? "")) throw error;
  }
}

/**
 * Throws PreconditionError if the migration's sockets and locks are in another run folder than this command's
 * (which a job of cron may have, where XDG_RUNTIME_DIR is not set). A reboot empties all of them.
 */
export function checkSameRunFolder(
  { id, runFolder, bootId: then }: {
    readonly id: string;
    readonly runFolder: string;
    readonly bootId: string;
  },
  { run }: RoleFolders,
): void {
  if (runFolder === run || then !== bootId()) return;
  throw new PreconditionError(`${id} was set up with the run folder ${runFolder}, and this one is ${run}`, {
    hint: `give the command with DLSM_RUN_DIR=${runFolder}`,
  });
}

/** Changes to what a role has under way are made one at a time: under the lock of the run folder itself. */
export function lockPath(folders: RoleFolders): string {
  return folders.run;
}
