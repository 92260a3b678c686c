/**
 * The driver's place: who drives a migration to its end, one conversation or background process at a time.
 *
 * A conversation that ends without leaving the place (its controller was killed, the network is down) hands
 * it to a process in the background of this host, the destination's.
 */
import { closeSync, existsSync, openSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { writePrivateFile } from "../lib/atomic-file.ts";
import { acquire } from "../lib/lock.ts";
import { identify, isRunning, type ProcessId } from "../lib/process-id.ts";
import { selfCommand } from "../lib/self.ts";
import { alone } from "./alone.ts";
import { listIds, makeRunFolder, type RoleFolders, roleFolders } from "./layout.ts";
import { migrationOf, type Request } from "./messages.ts";

const fileName = "driver";

interface Place {
  readonly folders: RoleFolders;
  readonly lock: { release(): void };
}

export class DriverRole {
  readonly #folders: RoleFolders;
  readonly #places = new Map<string, Place>();

  constructor(folders: RoleFolders) {
    this.#folders = folders;
  }

  /** Takes the place, with the note of whoever had it before if that is this process; false if another process has it, or the migration is gone. */
  async take({ id }: Request<"driver.take">): Promise<boolean> {
    const lead = leadFolders(this.#folders, id);
    if (lead !== undefined && !existsSync(lead.run)) await this.#makeAgain(id);
    if (this.#places.has(id)) return true;
    const folders = leadFolders(this.#folders, id);
    const lock = folders !== undefined && existsSync(folders.run) ? acquire(folders.run) : undefined;
    if (folders === undefined || lock === undefined) return false;
    this.#places.set(id, { folders, lock });
    const last = readDriver(this.#folders, id);
    writeDriver(folders, last?.pid === process.pid ? last.note : null);
    return true;
  }

  /** What a reboot took away. Under the host's lock: who ends the migration removes it, too. */
  async #makeAgain(id: string): Promise<void> {
    await alone(this.#folders, () => {
      const folders = leadFolders(this.#folders, id);
      if (folders !== undefined) makeRunFolder(folders);
      return Promise.resolve();
    });
  }

  leave({ id, goOn }: Request<"driver.leave">): null {
    const place = this.#places.get(id);
    if (place !== undefined) {
      forgetDriver(this.#folders, id, place.folders);
      place.lock.release();
    }
    this.#places.delete(id);
    if (goOn) startDriver(this.#folders, id);
    return null;
  }

  note({ id, note }: Request<"driver.note">): null {
    const place = this.#places.get(id);
    if (place !== undefined) writeDriver(place.folders, note);
    return null;
  }

  /** At the end of the conversation. */
  close(): void {
    for (const id of [...this.#places.keys()]) this.leave({ id, goOn: true });
  }
}

export interface DriverFile {
  /** Null: it has ended. */
  readonly pid: number | null;
  /** What holds it up, or why it ended. */
  readonly note: string | null;
}

/** The driver of a disk's migration, or the last one; undefined if there was none. */
export function readDriver(folders: RoleFolders, diskId: string): DriverFile | undefined {
  const lead = leadFolders(folders, migrationOf(diskId));
  try {
    const { process: id, note } = JSON.parse(readFileSync(join(lead!.run, fileName), "utf8")) as {
      readonly process: ProcessId;
      readonly note: string | null;
    };
    if (isRunning(id)) return { pid: id.pid, note };
    const migration = migrationOf(diskId);
    return {
      pid: null,
      note: note ?? `whoever drove it was killed: dlsm resume ${migration} goes on with it`,
    };
  } catch {
    return undefined;
  }
}

function writeDriver({ run }: RoleFolders, note: string | null): void {
  try {
    const content = JSON.stringify({ process: identify(process.pid), note });
    writePrivateFile(join(run, fileName), content);
  } catch {
    // No space left, perhaps: the name is for the status only, what counts is the lock.
  }
}

/** Whoever leaves in good order was not killed; why it ended stays to be read. */
function forgetDriver(all: RoleFolders, id: string, { run }: RoleFolders): void {
  if (readDriver(all, id)?.note === null) rmSync(join(run, fileName), { force: true });
}

/** Starts a driver in a session of its own, unless the migration is gone; it ends if another one drives. */
function startDriver(all: RoleFolders, id: string): void {
  const folders = leadFolders(all, id);
  if (folders === undefined || !existsSync(folders.run)) return;
  const { program, args } = selfCommand(["drive", id]);
  // Any descriptor will do, whatever execa's types say.
  const log = openSync(join(folders.state, "driver.log"), "a", 0o600) as 3;
  try {
    const child = execa(program, args, {
      cwd: "/",
      env: { DLSM_STATE_DIR: all.state, DLSM_RUN_DIR: all.run },
      stdio: ["ignore", log, log],
      detached: true,
      cleanup: false,
      reject: false,
    });
    child.nodeChildProcess.unref();
  } finally {
    closeSync(log);
  }
}

/** The folders of the disk that ends last, whose run folder is the migration's lock. */
function leadFolders(folders: RoleFolders, id: string): RoleFolders | undefined {
  const lead = listIds(folders, "destination").find((each) => migrationOf(each) === id);
  return lead === undefined ? undefined : roleFolders(folders, "destination", lead);
}
