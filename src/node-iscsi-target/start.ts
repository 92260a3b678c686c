/** Starting a private tgtd, and finding one that runs already. */
import { execa } from "execa";
import { chmodSync, closeSync, existsSync, mkdirSync, openSync, realpathSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { controlNumber, daemonArguments, portalText, socketName, socketPrefix } from "./arguments.ts";
import { checkCount, checkPortal, checkSocketPath } from "./check.ts";
import { Control, logName, readLog } from "./control.ts";
import { Daemon, removeFiles } from "./daemon.ts";
import { isTgtError, TgtError } from "./errors.ts";
import { isWildcard } from "./parse.ts";
import { daemonsIn, folderMark, identify, isRunning, killProcess, type ProcessId } from "./process.ts";
import { environment, findPrograms, type Programs } from "./programs.ts";
import { readState, writeState } from "./state-file.ts";
import type { Portal } from "./types.ts";
import { chooseNamespace, inNamespace, type Namespace, prepareViews } from "./view.ts";

export interface StartOptions {
  /** The daemon's own; made if it is not there, 0700. Its path may be about 100 bytes long. */
  readonly folder: string;
  /** A literal address of this host, never all of them; port 0: any free one. */
  readonly portal: Portal;
  /** 1 to 128, default 4. */
  readonly ioThreads?: number;
  /** Keep tgtd from opening disks for writing, where that can be had; see view.ts. Default: true. */
  readonly readOnlyView?: boolean;
  /** A silent peer is given up after `nopIntervalSeconds * (nopCount + 1)`. Defaults: 5 and 3. */
  readonly nopIntervalSeconds?: number;
  readonly nopCount?: number;
  /** How long one call may take, default 10000. */
  readonly timeoutMs?: number;
  /** Where tgtd and tgtadm are; default: on the PATH or in an sbin folder. */
  readonly programs?: Partial<Programs>;
}

const defaultTimeoutMs = 10_000;
const readyTimeoutMs = 15_000;

/**
 * Starts a tgtd that listens on `portal` and nowhere else, and outlives this process.
 *
 * Throws TgtError "invalidArgument", "notInstalled", "alreadyRunning", "portInUse", "addressNotAvailable",
 * "permission", "startFailed", "wildcardPortal"; then nothing is left behind.
 */
export async function startDaemon(options: StartOptions): Promise<Daemon> {
  const { ioThreads = 4, nopIntervalSeconds = 5, nopCount = 3, timeoutMs = defaultTimeoutMs } = options;
  checkPortal(options.portal);
  checkCount("ioThreads", ioThreads, 1, 128);
  checkCount("nopIntervalSeconds", nopIntervalSeconds, 1, 3600);
  checkCount("nopCount", nopCount, 1, 100);
  checkCount("timeoutMs", timeoutMs, 1, 3_600_000);
  const programs = findPrograms(options.programs);
  const folder = prepareFolder(options.folder);
  refuseSecond(folder);
  await endStrays(folder);
  const namespace = options.readOnlyView === false ? "none" : await chooseNamespace();
  const argv = daemonArguments({ ioThreads, nopIntervalSeconds, nopCount });

  let id: ProcessId | undefined;
  try {
    await prepareViews(folder);
    id = launch(folder, namespace, [programs.tgtd, ...argv]);
    const control = new Control({ folder, tgtadm: programs.tgtadm, timeoutMs });
    await untilReady(control, id, folder);
    await listen(control, options.portal);
    const state = { version: 1, ...id, namespace, tgtadm: programs.tgtadm } as const;
    writeState(folder, state);
    return new Daemon(folder, state, timeoutMs);
  } catch (error) {
    if (id !== undefined) await killProcess(id);
    await removeFiles(folder);
    throw error;
  }
}

/** The daemon that runs in `folder`, whichever process started it; undefined: none does. */
export function adoptDaemon(folder: string, timeoutMs = defaultTimeoutMs): Promise<Daemon | undefined> {
  let path: string;
  try {
    path = realpathSync(folder);
  } catch {
    return Promise.resolve(undefined);
  }
  const state = readState(path);
  const runs = state !== undefined && isRunning(state);
  return Promise.resolve(runs ? new Daemon(path, state, timeoutMs) : undefined);
}

/** Its path without symbolic links. */
function prepareFolder(folder: string): string {
  checkSocketPath(join(resolve(folder), socketName));
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const path = realpathSync(folder);
    checkSocketPath(join(path, socketName));
    if (statSync(path).uid !== process.getuid?.()) {
      throw new TgtError("permission", `the folder ${path} belongs to another user`);
    }
    chmodSync(path, 0o700);
    return path;
  } catch (cause) {
    if (cause instanceof TgtError) throw cause;
    throw new TgtError("permission", `the folder ${folder} cannot be used: ${(cause as Error).message}`, {
      cause,
    });
  }
}

function refuseSecond(folder: string): void {
  const known = readState(folder);
  if (known !== undefined && isRunning(known)) {
    throw new TgtError("alreadyRunning", `a tgtd (pid ${known.pid}) runs in ${folder} already`);
  }
}

/**
 * Ends what runs in `folder` and cannot be adopted: a tgtd whose start was cut short has no state file; it
 * exports nothing. One whose folder was removed under it cannot be told anything any more.
 */
export async function endStrays(folder: string): Promise<void> {
  const adopted = await adoptDaemon(folder);
  const folders = [resolve(folder), ...(existsSync(folder) ? [realpathSync(folder)] : [])];
  for (const stray of daemonsIn(folders)) {
    if (stray.pid !== adopted?.pid) await killProcess(stray);
  }
}

/** Starts the process, detached: in a session of its own, its output in the log. */
function launch(folder: string, namespace: Namespace, command: readonly string[]): ProcessId {
  // Any descriptor will do, whatever execa's types say.
  const log = openSync(join(folder, logName), "w", 0o600) as 3;
  try {
    const [program, ...argv] = inNamespace(namespace, command);
    const child = execa(program!, argv, {
      cwd: folder,
      extendEnv: false,
      env: environment({ TGT_IPC_SOCKET: socketPrefix, [folderMark]: folder }),
      stdio: ["ignore", log, log],
      detached: true,
      cleanup: false,
      reject: false,
    });
    const id = child.pid === undefined ? undefined : identify(child.pid);
    if (id === undefined) throw new TgtError("startFailed", `${program} could not be started`);
    child.nodeChildProcess.unref();
    return id;
  } finally {
    closeSync(log);
  }
}

async function untilReady(control: Control, id: ProcessId, folder: string): Promise<void> {
  const deadline = performance.now() + readyTimeoutMs;
  for (let waitMs = 5;; waitMs = Math.min(2 * waitMs, 100)) {
    if (!isRunning(id)) throw new TgtError("startFailed", `tgtd ended at once: ${lastLines(folder)}`);
    try {
      const system = await control.system();
      if (system.state === "ready" && system.drivers.get("iscsi") === "ready") return;
    } catch (error) {
      if (!isTgtError(error, "noDaemon")) throw error;
    }
    if (performance.now() >= deadline) {
      throw new TgtError("startFailed", `tgtd is not ready after ${readyTimeoutMs} ms: ${lastLines(folder)}`);
    }
    await sleep(waitMs);
  }
}

const lastLines = (folder: string) => readLog(folder).trim().split("\n").slice(-3).join(" | ");

/** From the loopback portal that every daemon starts with to the one that is wanted, and no other. */
async function listen(control: Control, wanted: Portal): Promise<void> {
  const [first, ...others] = await control.portals();
  if (first === undefined || others.length > 0 || isWildcard(first)) throw wildcard([first, ...others]);
  const isIt = first.address === wanted.address && (wanted.port === 0 || wanted.port === first.port);
  if (!isIt) {
    await control.newPortal(wanted);
    await control.deletePortal(first);
  }
  const portals = await control.portals();
  if (portals.length !== 1 || portals.some(isWildcard)) throw wildcard(portals);
}

function wildcard(portals: readonly (Portal | undefined)[]): TgtError {
  const listed = portals.map((portal) => portal === undefined ? "nothing" : portalText(portal)).join(", ");
  return new TgtError("wildcardPortal", `tgtd (control number ${controlNumber}) listens on ${listed}`);
}
