/** What every command that works with migrations needs: the hosts, the reporter, Ctrl-C, the background. */
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { execa } from "execa";
import { exitCodes, FailedError, InterruptedError } from "../lib/errors.ts";
import { runFolder, stateFolder } from "../lib/paths.ts";
import { selfCommand } from "../lib/self.ts";
import {
  type Context,
  Driver,
  endedStatus,
  findStatus,
  handOffNew,
  type Outcome,
  statusById,
} from "../migration/mod.ts";
import { createReporter, type MigrationStatus, type Reporter, statusLines } from "../report/mod.ts";
import {
  becomeDriver,
  type DestinationEntry,
  localHost,
  readDriver,
  type RoleFolders,
  roleFolders,
} from "../role/mod.ts";
import { summaryOf } from "./summary.ts";

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface Session extends Context {
  readonly folders: RoleFolders;
}

/**
 * Opens the roles of this machine for the time of `work`. Ctrl-C and its like abort the session's signal, so
 * that the step under way is finished and the state stays one that can be explained; the second one ends the
 * process at once, which loses nothing either.
 */
export async function withSession<T>(reporter: Reporter, work: (session: Session) => Promise<T>): Promise<T> {
  const folders = { state: stateFolder(), run: runFolder() };
  const host = await localHost(folders);
  const interruption = new AbortController();
  const interrupt = () => {
    if (interruption.signal.aborted) process.exit(exitCodes.interrupted);
    interruption.abort();
  };
  for (const signal of signals) process.on(signal, interrupt);
  try {
    return await work({ source: host, destination: host, reporter, folders, signal: interruption.signal });
  } finally {
    for (const signal of signals) process.removeListener(signal, interrupt);
    await host.close();
  }
}

export function reporterFor(args: { readonly json?: boolean }): Reporter {
  return createReporter(args.json === true);
}

export function showStatus(reporter: Reporter, status: MigrationStatus): void {
  reporter.result({ json: status, lines: statusLines(status) });
}

/** Lets the migration go on without this command. */
export function detach(session: Session, id: string): void {
  const driver = readDriver(roleFolders(session.folders, "destination", id));
  if (driver !== undefined && driver !== process.pid) return;
  const { program, args } = selfCommand(["drive", id]);
  const folder = roleFolders(session.folders, "destination", id).state;
  // Any descriptor will do, whatever execa's types say.
  const log = openSync(join(folder, "driver.log"), "a", 0o600) as 3;
  try {
    const child = execa(program, args, {
      cwd: "/",
      env: { DLSM_STATE_DIR: session.folders.state, DLSM_RUN_DIR: session.folders.run },
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

/** What follows the set-up: the hand-off, then the rest, in this process or in the background. */
export async function goOn(
  session: Session,
  entry: DestinationEntry,
  options: { readonly force: boolean; readonly detach: boolean },
): Promise<void> {
  const { reporter } = session;
  const { id } = entry;
  const isHandedOver = await handOffNew(session, entry, options.force);
  const status = await statusById(session, id);
  if (options.detach) {
    detach(session, id);
    showStatus(reporter, status);
    return;
  }
  reporter.message("info", `${id}: the disk can be used at ${status.disks[0].nbdUri}`);
  if (!isHandedOver) {
    reporter.message("info", `when its user has stopped on the source: dlsm activate ${id}`);
  }
  await follow(session, id);
}

/** Follows the migration to its end in this process; on Ctrl-C it goes on in the background. */
export async function follow(session: Session, id: string): Promise<void> {
  try {
    report(session.reporter, id, await drive(session, id));
  } catch (error) {
    if (!session.signal.aborted) throw error;
    detach(session, id);
    throw new InterruptedError(`interrupted; ${id} goes on in the background`, {
      hint: `see how far it is with dlsm status ${id}`,
      cause: error,
    });
  }
}

/** Drives the migration, or follows it while another process does. */
export async function drive(session: Session, id: string): Promise<Outcome> {
  let last: MigrationStatus | undefined;
  for (;;) {
    const status = await findStatus(session, id);
    if (status === undefined) return { end: "gone", status: last, comparedBytes: undefined };
    last = status;
    const place = becomeDriver(roleFolders(session.folders, "destination", id));
    if (place !== undefined) {
      try {
        return await new Driver(session, id).run();
      } finally {
        place.release();
      }
    }
    session.reporter.progress(status);
    await sleep(200, undefined, { signal: session.signal });
  }
}

function report(reporter: Reporter, id: string, { end, status, comparedBytes }: Outcome): void {
  if (status !== undefined && end === "done") {
    reporter.result(summaryOf(status, comparedBytes, Date.now()));
    return;
  }
  const wasAtEnd = status !== undefined && ["synced", "released"].includes(status.phase);
  if (!wasAtEnd) throw new FailedError(`${id} was ended by another command`);
  // Another process finished it; what it compared it has told where it ran.
  reporter.result(summaryOf(endedStatus(status), undefined, Date.now()));
}
