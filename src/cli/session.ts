/** What every command that works with migrations needs: the hosts, the reporter, Ctrl-C, the background. */
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { execa } from "execa";
import { FailedError, InterruptedError } from "../lib/errors.ts";
import { runFolder, stateFolder } from "../lib/paths.ts";
import { selfCommand } from "../lib/self.ts";
import { type Context, Driver, type Outcome, statusById } from "../migration/mod.ts";
import { createReporter, type MigrationStatus, type Reporter, statusLines } from "../report/mod.ts";
import { becomeDriver, Host, type RoleFolders, roleFolders } from "../role/mod.ts";
import { summaryOf } from "./summary.ts";

export interface Session extends Context {
  readonly folders: RoleFolders;
}

/** Opens the roles of this machine for the time of `work`. */
export async function withSession<T>(reporter: Reporter, work: (session: Session) => Promise<T>): Promise<T> {
  const folders = { state: stateFolder(), run: runFolder() };
  const host = await Host.local(folders);
  try {
    return await work({ source: host, destination: host, reporter, folders });
  } finally {
    host.close();
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

/** Follows the migration to its end in this process; on Ctrl-C it goes on in the background. */
export async function follow(session: Session, id: string): Promise<void> {
  const interruption = new AbortController();
  const interrupt = () => interruption.abort();
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) process.once(signal, interrupt);
  try {
    const outcome = await drive(session, id, interruption.signal);
    report(session.reporter, id, outcome);
  } catch (error) {
    if (!interruption.signal.aborted) throw error;
    detach(session, id);
    throw new InterruptedError(`interrupted; ${id} goes on in the background`, {
      hint: `see how far it is with dlsm status ${id}`,
      cause: error,
    });
  } finally {
    for (const signal of signals) process.removeListener(signal, interrupt);
  }
}

/** Drives the migration, or follows it while another process does. */
export async function drive(session: Session, id: string, signal: AbortSignal): Promise<Outcome> {
  let last: MigrationStatus | undefined;
  for (;;) {
    const status = await statusById(session, id).catch(() => undefined);
    if (status === undefined) return { end: "gone", status: last, comparedBytes: undefined };
    last = status;
    const place = becomeDriver(roleFolders(session.folders, "destination", id));
    if (place !== undefined) {
      try {
        return await new Driver(session, id).run(signal);
      } finally {
        place.release();
      }
    }
    session.reporter.progress(status);
    await sleep(200, undefined, { signal });
  }
}

function report(reporter: Reporter, id: string, { end, status, comparedBytes }: Outcome): void {
  if (status !== undefined && end === "done") {
    reporter.result(summaryOf(status, comparedBytes));
    return;
  }
  const wasAtEnd = status !== undefined && ["synced", "released"].includes(status.phase);
  if (!wasAtEnd) throw new FailedError(`${id} was ended by another command`);
  reporter.result({
    json: { ...status, phase: "done" },
    lines: [`${id} done (another process finished it)`],
  });
}
