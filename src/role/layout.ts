/** Where the roles keep what; both kinds of folders are private (0700). */
import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { syncFolder } from "../lib/atomic-file.ts";
import { messageOf, PreconditionError } from "../lib/errors.ts";
import { maxSocketPathBytes } from "../lib/unix-socket.ts";

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

/** Throws PreconditionError if they cannot be made. */
export function makeRoleFolders({ state, run }: RoleFolders): void {
  for (const path of [state, run]) {
    try {
      mkdirSync(path, { recursive: true, mode: 0o700 });
      chmodSync(path, 0o700);
    } catch (cause) {
      throw new PreconditionError(`the folder ${path} cannot be made: ${messageOf(cause)}`, {
        hint:
          "see that its file system is writable and has space, or name other folders in DLSM_STATE_DIR and " +
          "DLSM_RUN_DIR",
        cause,
      });
    }
  }
  syncFolder(dirname(state));
}

/** Throws PreconditionError if `longestSocket`, a path in the run folder, is longer than a socket's may be. */
export function checkRunFolder({ run }: RoleFolders, longestSocket: string): void {
  const excess = Buffer.byteLength(longestSocket) - maxSocketPathBytes;
  if (excess <= 0) return;
  throw new PreconditionError(`the run folder ${run} has too long a path for unix sockets in it`, {
    hint: `name one that is at least ${excess} bytes shorter in DLSM_RUN_DIR`,
  });
}

/** Removes the role's folders, and those above that are empty then. */
export function removeRoleFolders(folders: RoleFolders, role: RoleName, id: string): void {
  const { state, run } = roleFolders(folders, role, id);
  rmSync(run, { recursive: true, force: true });
  removeIfEmpty(dirname(run));
  rmSync(state, { recursive: true, force: true });
  if (existsSync(dirname(state))) syncFolder(dirname(state));
  removeIfEmpty(dirname(state));
}

/** Ids of the migrations that have a state folder for the role. */
export function listIds(folders: RoleFolders, role: RoleName): string[] {
  const path = join(folders.state, role);
  return existsSync(path) ? readdirSync(path).sort() : [];
}

function removeIfEmpty(path: string): void {
  if (existsSync(path) && readdirSync(path).length === 0) rmSync(path, { recursive: true, force: true });
}

/** Changes to what a role has under way are made one at a time: under the lock of the run folder itself. */
export function lockPath(folders: RoleFolders): string {
  return folders.run;
}
