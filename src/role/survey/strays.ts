/**
 * What dlsm left behind on this host: processes and files that no record stands for.
 *
 * Provably left over is what has no record in the state folder it was made for, belongs to dlsm by its own
 * folder, is locked by nobody and used by nobody. A disk's data, and what may be needed to read it, is never
 * that. Look only under the lock of the run folder: without it, something may just be in the making.
 */
import { existsSync, readdirSync, rmdirSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { engineFiles } from "../../engine/mod.ts";
import { FailedError } from "../../lib/errors.ts";
import { acquire } from "../../lib/lock.ts";
import { environmentOf, hasEnded, kill, type ProcessId } from "../../lib/process-id.ts";
import { engineMark, engineStatus, stopEngine } from "../engine-process.ts";
import { listIds, ownerOf, type RoleFolders, roleFolders, type RoleName } from "../layout.ts";
import { migrationOf } from "../messages.ts";
import { type Finding, stray } from "./finding.ts";
import { isInside, type OwnProcess, parentOf, processesBeside, socketsOf } from "./processes.ts";

export interface Stray {
  readonly finding: Finding;
  /** Removes it and says what was done; null: it is not provably of no use. */
  readonly remove: (() => Promise<string>) | null;
}

/** Somebody may still write a file that is younger. */
const unfinishedMs = 60_000;
const endTimeoutMs = 10_000;
/** A driver ends soon after its migration. */
const driverTimeoutMs = 2_000;
const roleNames: readonly RoleName[] = ["source", "destination"];

export async function findStrays(folders: RoleFolders): Promise<Stray[]> {
  const processes = processesBeside(folders);
  const found: Stray[] = [];
  for (const process of processes) {
    const one = strayTgtd(folders, process) ?? await strayEngine(folders, process) ??
      await strayDriver(folders, process) ?? strayTunnel(folders, process, processes);
    if (one !== undefined) found.push(one);
  }
  return [...found, ...strayRunFolders(folders, processes), ...halfMade(folders)];
}

/** A tgtd that runs in the run folder of no export. */
function strayTgtd(folders: RoleFolders, { id, name, cwd }: OwnProcess): Stray | undefined {
  const run = dirname(cwd);
  const [diskId, role] = [basename(dirname(run)), basename(run)];
  const isOurs = name === "tgtd" && basename(cwd) === "tgt" && role === "src" &&
    dirname(dirname(run)) === folders.run;
  if (!isOurs || hasRecord(folders, "source", diskId)) return undefined;
  const sessions = socketsOf(id.pid)?.filter(({ state }) => state === "established").length;
  const inTheWay = whyOwned(folders, "source", diskId) ??
    (sessions === 0 ? undefined : "it may be in use: somebody is logged in");
  return judged(
    "tgtd",
    `process ${id.pid}`,
    `tgtd (pid ${id.pid}) runs in ${cwd}, and no journal knows of an export ${diskId}`,
    inTheWay,
    `if nobody needs that export: kill -KILL ${id.pid}`,
    async () => {
      await end(id, "SIGKILL");
      removeRun(run);
      return `ended tgtd (pid ${id.pid}) and removed ${run}`;
    },
  );
}

/** An engine whose volume has no state folder any more. */
async function strayEngine(folders: RoleFolders, { id, words }: OwnProcess): Promise<Stray | undefined> {
  const at = words.indexOf("engine");
  const [state, run] = [words[at + 1] ?? "", words[at + 2] ?? ""];
  const diskId = basename(state);
  const own = roleFolders(folders, "destination", diskId);
  if (at < 0 || run !== own.run || state !== own.state || hasRecord(folders, "destination", diskId)) {
    return undefined;
  }
  const volume = { state, run };
  return judged(
    "engine",
    `process ${id.pid}`,
    `the engine of ${diskId} (pid ${id.pid}) runs, and its state folder ${state} is gone`,
    await whyEngineIsNeeded(volume, id.pid),
    `copy the volume from ${
      join(run, engineFiles.nbdSocket)
    } (nbdcopy) if its data is needed, then kill ${id.pid}`,
    async () => {
      await stopEngine(volume);
      removeRun(run);
      return `stopped the engine (pid ${id.pid}) and removed ${run}`;
    },
  );
}

/** Which blocks are on the local disk only the engine knows, once its map was removed. */
async function whyEngineIsNeeded(volume: RoleFolders, pid: number): Promise<string | undefined> {
  const status = await engineStatus(volume).catch(() => undefined);
  if (status === undefined || status.pid !== pid) return "it does not answer, and may have data";
  if (status.clients > 0) return `${status.clients} client(s) use it`;
  if (status.state === "active") return "only it knows which blocks are on the local disk";
  return undefined;
}

async function strayDriver(folders: RoleFolders, process: OwnProcess): Promise<Stray | undefined> {
  const { id, words } = process;
  const migration = words[words.indexOf("drive") + 1];
  const isDriver = words.includes("drive") && migration !== undefined &&
    environmentOf(process.id.pid, "DLSM_RUN_DIR") === folders.run &&
    environmentOf(process.id.pid, "DLSM_STATE_DIR") === folders.state;
  const isNeeded = () => listIds(folders, "destination").some((each) => migrationOf(each) === migration);
  if (!isDriver || isNeeded() || await hasEnded(id, driverTimeoutMs)) return undefined;
  return judged(
    "driver",
    `process ${id.pid}`,
    `dlsm drive ${migration} (pid ${id.pid}) runs, and there is no migration ${migration} here`,
    undefined,
    `kill ${id.pid}`,
    async () => {
      await end(id, "SIGTERM");
      return `ended the driver (pid ${id.pid})`;
    },
  );
}

/** An `ssh -W` that outlived the engine it carried bytes for. */
function strayTunnel(
  folders: RoleFolders,
  process: OwnProcess,
  all: readonly OwnProcess[],
): Stray | undefined {
  const { id, name, words } = process;
  if (name !== "ssh" || !words.includes("-W")) return undefined;
  const run = environmentOf(process.id.pid, engineMark);
  if (run === undefined || !isInside(run, folders.run)) return undefined;
  const parent = all.find((each) => each.id.pid === parentOf(id.pid));
  if (parent !== undefined && environmentOf(parent.id.pid, engineMark) === run) return undefined;
  return judged(
    "tunnel",
    `process ${id.pid}`,
    `ssh (pid ${id.pid}) carries bytes for an engine in ${run} that is gone`,
    undefined,
    `kill ${id.pid}`,
    async () => {
      await end(id, "SIGTERM");
      return `ended ssh (pid ${id.pid})`;
    },
  );
}

/** Sockets, live maps and views of a migration that no journal stands for, where no process lives. */
function strayRunFolders(folders: RoleFolders, processes: readonly OwnProcess[]): Stray[] {
  return listed(folders.run).filter((name) => /^[a-z0-9]{4,16}(-\d+)?$/.test(name)).flatMap((diskId) =>
    roleNames.flatMap((role) => {
      const { run } = roleFolders(folders, role, diskId);
      const isLivedIn = processes.some(({ cwd, words }) => isInside(cwd, run) || words.includes(run));
      if (!existsSync(run) || hasRecord(folders, role, diskId) || isLivedIn) return [];
      return [judged(
        "run-folder",
        run,
        `${run} (${contents(run)}) is there, and no journal knows of ${diskId} as ${role}`,
        whyOwned(folders, role, diskId) ?? whyLocked(run),
        `if no dlsm with another state folder needs it: rm -r ${run}`,
        () => {
          removeRun(run);
          return Promise.resolve(`removed ${run}`);
        },
      )];
    })
  );
}

/** State folders without their name (being made or removed), and files that were to take another's place. */
function halfMade({ state }: RoleFolders): Stray[] {
  return roleNames.flatMap((role) => {
    const folder = join(state, role);
    const unnamed = listed(folder).filter((name) => name.startsWith(".")).map((name) => join(folder, name));
    const temporary = listed(folder).filter((name) => !name.startsWith(".")).flatMap((name) =>
      listed(join(folder, name)).filter((file) => /^\..+\.[0-9a-f]{12}\.tmp$/.test(file))
        .map((file) => join(folder, name, file))
        .filter((path) => ageMs(path) > unfinishedMs)
    );
    return [...unnamed, ...temporary].map((path) =>
      judged(
        "half-made",
        path,
        `${path} was being made or removed when dlsm was killed; nothing refers to it`,
        undefined,
        `rm -r ${path}`,
        () => {
          rmSync(path, { recursive: true, force: true });
          return Promise.resolve(`removed ${path}`);
        },
      )
    );
  });
}

/** `inTheWay`: why it may be needed all the same. `byHand`: what a user can do then. */
function judged(
  check: string,
  subject: string,
  message: string,
  inTheWay: string | undefined,
  byHand: string,
  remove: () => Promise<string>,
): Stray {
  if (inTheWay !== undefined) {
    return { finding: stray(check, subject, `${message}; ${inTheWay}`, byHand), remove: null };
  }
  return { finding: { ...stray(check, subject, message, "dlsm doctor --clean"), cleanable: true }, remove };
}

function hasRecord(folders: RoleFolders, role: RoleName, diskId: string): boolean {
  return existsSync(roleFolders(folders, role, diskId).state);
}

/** A run folder may be shared by several state folders: only its own one can say that it is not needed. */
function whyOwned(folders: RoleFolders, role: RoleName, diskId: string): string | undefined {
  const { state, run } = roleFolders(folders, role, diskId);
  if (!existsSync(run)) return "the folder it was started in was removed";
  if (listed(run).length === 0) return undefined;
  const owner = ownerOf(run);
  if (owner === state) return undefined;
  return owner === undefined ? "it does not say which state folder it belongs to" : `it belongs to ${owner}`;
}

function whyLocked(run: string): string | undefined {
  const lock = acquire(run);
  lock?.release();
  return lock === undefined ? "a process holds its lock" : undefined;
}

/** SIGKILL if the signal alone does not help: killing any process of dlsm loses nothing. */
async function end(id: ProcessId, signal: NodeJS.Signals): Promise<void> {
  for (const each of [signal, "SIGKILL"] as const) {
    kill(id, each);
    if (await hasEnded(id, endTimeoutMs)) return;
  }
  throw new FailedError(`process ${id.pid} does not end`);
}

/** Removes a role's run folder, and the migration's above it if nothing else is in it. */
function removeRun(run: string): void {
  rmSync(run, { recursive: true, force: true });
  if (existsSync(dirname(run)) && listed(dirname(run)).length === 0) rmdirSync(dirname(run));
}

function contents(folder: string): string {
  return listed(folder).join(", ") || "empty";
}

function ageMs(path: string): number {
  const stats = statSync(path, { throwIfNoEntry: false });
  return stats === undefined ? 0 : Date.now() - stats.mtimeMs;
}

function listed(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
