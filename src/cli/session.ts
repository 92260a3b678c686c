/** What every command that works with migrations needs: the hosts, the reporter, Ctrl-C, the background. */
import { exitCodes, FailedError, InterruptedError } from "../lib/errors.ts";
import { runFolder, stateFolder } from "../lib/paths.ts";
import {
  AddressBook,
  type Context,
  destinationsOf,
  Driver,
  findHosts,
  handOffNew,
  type Hosts,
  isSameHost,
  observe,
  observeKnown,
  type Outcome,
  statusById,
} from "../migration/mod.ts";
import { createReporter, type MigrationStatus, type Reporter, statusLines } from "../report/mod.ts";
import { type DestinationEntry, type Host, isUnreachable, localHost, remoteHost } from "../role/mod.ts";
import { summaryOf } from "./summary.ts";

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface Session {
  readonly hosts: Hosts;
  readonly reporter: Reporter;
  /** Aborted by Ctrl-C and its like. */
  readonly signal: AbortSignal;
}

/**
 * `named`: hosts on which to look for migrations, too. `deploy`: copies dlsm to hosts that are asked.
 *
 * Gives `work` this machine's roles and, by ssh, those of others. Ctrl-C and its like abort the session's
 * signal, so that the step under way is finished and the state stays one that can be explained; the second
 * one ends the process at once, which loses nothing either.
 */
export async function withSession<T>(
  reporter: Reporter,
  { named = [], deploy = false }: { readonly named?: readonly string[]; readonly deploy?: boolean },
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const folders = { state: stateFolder(), run: runFolder() };
  const open = new Map<string | null, Host>([[null, await localHost(folders)]]);
  const at = (reach: string | null): Host => {
    let host = open.get(reach);
    if (host === undefined) {
      host = remoteHost(reach!, { deploy, onLog: (line) => reporter.message("warn", line) });
      open.set(reach, host);
    }
    return host;
  };
  const interruption = new AbortController();
  const interrupt = () => {
    if (interruption.signal.aborted) process.exit(exitCodes.interrupted);
    interruption.abort();
  };
  for (const signal of signals) process.on(signal, interrupt);
  try {
    const hosts = { at, book: new AddressBook(folders.state), named };
    return await work({ hosts, reporter, signal: interruption.signal });
  } finally {
    for (const signal of signals) process.removeListener(signal, interrupt);
    await Promise.all([...open.values()].map((host) => host.close()));
  }
}

/** As `withSession`, for a migration that is there already, wherever its hosts are. */
export async function withMigration<T>(
  reporter: Reporter,
  id: string,
  named: readonly string[],
  work: (session: Session & Context) => Promise<T>,
): Promise<T> {
  return await withSession(
    reporter,
    { named },
    async (session) => await work({ ...session, ...await findHosts(session.hosts, id) }),
  );
}

/** As `withSession`, with both roles on this machine. */
export async function withHere<T>(
  reporter: Reporter,
  work: (session: Session & Context) => Promise<T>,
): Promise<T> {
  return await withSession(reporter, {}, async (session) => {
    const here = session.hosts.at(null);
    return await work({ ...session, source: here, destination: here });
  });
}

export function reporterFor(args: { readonly json?: boolean }): Reporter {
  return createReporter(args.json === true);
}

export function showStatus(reporter: Reporter, status: MigrationStatus): void {
  reporter.result({ json: status, lines: statusLines(status) });
}

/** Lets the migration go on without this command, by a process on the destination's host. */
export async function detach({ source, destination, reporter }: Context, id: string): Promise<void> {
  const [entry] = await destination.ask("destination.list", { id });
  const problem = entry === undefined ? null : await wayProblem({ source, destination }, entry);
  if (problem !== null) {
    reporter.message(
      "warn",
      `${id}: its destination ${problem}: the data comes all the same; at the end dlsm resume ${id} from ` +
        "here releases the export",
    );
  }
  await destination.ask("driver.leave", { id, goOn: true });
}

/** Why the driver in the background, at the destination, will not reach the source; null: it will. */
async function wayProblem(
  { source, destination }: Pick<Context, "source" | "destination">,
  entry: DestinationEntry,
): Promise<string | null> {
  const { reach, hostId } = entry.source;
  if (source === destination || isSameHost(entry.source, entry.destination)) return null;
  if (reach === null) return "knows no way to the source by ssh";
  const { problem, ...found } = await destination.ask("host.reachSsh", { destination: reach });
  if (problem !== null) return `cannot reach the source as ${reach} by ssh (${problem})`;
  if (hostId === null || found.hostId === hostId) return null;
  return `reaches another host than the source as ${reach}, ${found.hostname}`;
}

/** Takes a migration that was taken back out of the address book. */
export async function forgetIfGone(context: Session & Context, id: string): Promise<void> {
  const { disks, sourceProblem, destinationProblem } = await observe(context, id);
  const isGone = disks.length === 0 && sourceProblem === null && destinationProblem === null;
  if (isGone) context.hosts.book.remove(id);
}

/** What follows the set-up: the hand-off, then the rest, in this process or in the background. */
export async function goOn(
  session: Session & Context,
  id: string,
  options: { readonly force: boolean; readonly detach: boolean },
): Promise<void> {
  const { reporter } = session;
  const { book } = session.hosts;
  const command = book.find(id)?.handoffCommand ?? null;
  let isHandedOver, isHeld;
  try {
    const view = await observeKnown(session, id);
    isHeld = destinationsOf(view).some(({ options }) => options.holdCutover || options.keepSource);
    isHandedOver = await handOffNew(session, view, { isForced: options.force, command });
    if (isHandedOver) book.forgetCommand(id);
  } catch (error) {
    await forgetIfGone(session, id);
    throw error;
  }
  if (isHeld) {
    reporter.message("info", `${id}: when all of it is here, its cut-over waits for dlsm cutover ${id}`);
  }
  const status = await statusById(session, id);
  if (options.detach) {
    await detach(session, id);
    showStatus(reporter, status);
    return;
  }
  const where = session.destination.reach === null ? "" : ` on ${status.destination.host}`;
  for (const { nbdUri } of status.disks) {
    reporter.message("info", `${id}: the disk can be used at ${nbdUri}${where}`);
  }
  if (!isHandedOver) {
    reporter.message("info", `when its user has stopped on the source: dlsm activate ${id}`);
  }
  await follow(session, id);
}

/** Follows the migration to its end in this process; on Ctrl-C it goes on in the background. */
export async function follow(session: Session & Context, id: string): Promise<void> {
  const { reporter, signal, destination, hosts } = session;
  try {
    const handoffCommand = hosts.book.find(id)?.handoffCommand ?? null;
    report(reporter, id, await new Driver(session, id, { handoffCommand }).run());
    hosts.book.remove(id);
  } catch (error) {
    if (!signal.aborted) throw error;
    try {
      await destination.ask("driver.leave", { id, goOn: true });
    } catch (cause) {
      // It goes on by itself when it notices that nobody is there.
      if (!isUnreachable(cause)) throw cause;
    }
    throw new InterruptedError(`interrupted; ${id} goes on in the background`, {
      hint: `see how far it is with dlsm status ${id}`,
      cause: error,
    });
  }
}

function report(reporter: Reporter, id: string, { end, status }: Outcome): void {
  if (status === undefined || end === "gone") throw new FailedError(`${id} was ended by another command`);
  reporter.result(summaryOf(status, Date.now()));
}
