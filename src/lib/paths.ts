/**
 * Where dlsm keeps what it knows: the state folder (journals, residency maps; survives a reboot) and the run
 * folder (sockets, live maps; may be lost with the power).
 *
 * `DLSM_STATE_DIR` and `DLSM_RUN_DIR` win; root uses /var/lib/dlsm and /run/dlsm; everybody else the folders
 * of the XDG Base Directory Specification.
 */
import { chmodSync, existsSync, lstatSync, mkdirSync, type Stats, statSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { errnoCode, messageOf, PreconditionError } from "./errors.ts";

export interface Folder {
  readonly path: string;
  /** Whether anybody may create names beside it (/tmp): an existing folder is then checked more strictly. */
  readonly isShared: boolean;
}

export interface Folders {
  readonly state: Folder;
  readonly run: Folder;
}

export interface Surroundings {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly uid: number;
  readonly home: string;
}

/** The folders for these surroundings; nothing is looked at or made. */
export function chooseFolders({ environment, uid, home }: Surroundings): Folders {
  const own = (path: string): Folder => ({ path, isShared: false });
  // The specification: a relative path in an XDG variable is to be ignored.
  const xdg = (name: string) => {
    const path = environment[name];
    return path !== undefined && isAbsolute(path) ? path : undefined;
  };
  const stateDefault = uid === 0
    ? "/var/lib/dlsm"
    : join(xdg("XDG_STATE_HOME") ?? join(home, ".local", "state"), "dlsm");
  const runtime = xdg("XDG_RUNTIME_DIR");
  const runDefault = uid === 0
    ? own("/run/dlsm")
    : runtime === undefined
    ? { path: `/tmp/dlsm-${uid}`, isShared: true }
    : own(join(runtime, "dlsm"));
  return {
    state: own(environment.DLSM_STATE_DIR ? resolve(environment.DLSM_STATE_DIR) : stateDefault),
    run: environment.DLSM_RUN_DIR ? own(resolve(environment.DLSM_RUN_DIR)) : runDefault,
  };
}

/** The state folder of this process, made if it is missing. Throws PreconditionError as `ensureFolder`. */
export function stateFolder(): string {
  const { state } = chooseFolders(surroundings());
  ensureFolder(state, "state folder", "DLSM_STATE_DIR");
  return state.path;
}

/** The run folder of this process, made if it is missing. Throws PreconditionError as `ensureFolder`. */
export function runFolder(): string {
  const { run } = chooseFolders(surroundings());
  ensureFolder(run, "run folder", "DLSM_RUN_DIR");
  return run.path;
}

/** Both folders of this process; nothing is looked at or made. */
export function ownFolders(): Folders {
  return chooseFolders(surroundings());
}

function surroundings(): Surroundings {
  return { environment: process.env, uid: ownUid(), home: homedir() };
}

/**
 * Makes the folder (mode 0700, and its parents) unless it is there. One that is there must belong to this
 * user and must not be writable by others; in a shared place it must not be a link nor open to others at
 * all, or somebody else could have put it there. Throws PreconditionError that says what is wrong.
 */
export function ensureFolder({ path, isShared }: Folder, what = "folder", variable?: string): void {
  const refuse = (problem: string, hint: string, cause?: unknown) => {
    const elsewhere = variable === undefined ? "" : `, or name another folder in ${variable}`;
    return new PreconditionError(`the ${what} ${path} ${problem}`, { hint: hint + elsewhere, cause });
  };

  try {
    makeFolder(path);
  } catch (cause) {
    throw refuse(`cannot be made: ${explain(cause)}`, `make ${dirname(path)} writable for this user`, cause);
  }
  let found: Stats;
  try {
    found = isShared ? lstatSync(path) : statSync(path);
  } catch (cause) {
    throw refuse(`cannot be used: ${explain(cause)}`, "check what is at this path", cause);
  }
  if (!found.isDirectory()) throw refuse("is not a folder", "move away what is there");
  if (found.uid !== ownUid()) {
    throw refuse(`belongs to another user (uid ${found.uid})`, "run dlsm as that user");
  }
  const forbidden = isShared ? 0o077 : 0o022;
  if ((found.mode & forbidden) !== 0) {
    const mode = (found.mode & 0o7777).toString(8).padStart(4, "0");
    throw refuse(`is open to other users (mode ${mode})`, `chmod 700 ${path} after checking what is in it`);
  }
}

/** Not mkdir's own `recursive`: where nothing can be made (/proc) Node tries for ever. */
function makeFolder(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if (errnoCode(error) === "EEXIST") return;
    if (errnoCode(error) !== "ENOENT" || existsSync(dirname(path))) throw error;
    makeFolder(dirname(path));
    mkdirSync(path, { mode: 0o700 });
  }
  // The umask may have taken away the owner's own bits.
  chmodSync(path, 0o700);
}

function explain(error: unknown): string {
  switch (errnoCode(error)) {
    case "EROFS":
      return "the file system is read-only";
    case "EACCES":
    case "EPERM":
      return "permission denied";
    case "ENOSPC":
      return "no space left";
    case "ENOTDIR":
      return "a part of the path is not a folder";
    case "ELOOP":
      return "too many symbolic links";
    default:
      return messageOf(error);
  }
}

/** Linux always has one; the type is for other systems. */
function ownUid(): number {
  return process.getuid?.() ?? 0;
}
