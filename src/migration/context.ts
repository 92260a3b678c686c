/** What the commands of a migration work with: the hosts of its two roles, and where to report. */
import { messageOf, PreconditionError, UnreachableError } from "../lib/errors.ts";
import type { MigrationStatus, Reporter } from "../report/mod.ts";
import type { AskOptions, Host } from "../role/mod.ts";
import { RpcTimeoutError } from "../rpc/mod.ts";
import { endedStatus, statusOf } from "./status.ts";
import { disksOf, type View, viewOf } from "./view.ts";

export interface Context {
  readonly source: Host;
  /** The same object as `source` if it is the same host. */
  readonly destination: Host;
  readonly reporter: Reporter;
  /** Aborted by Ctrl-C and its like; looked at between steps. */
  readonly signal: AbortSignal;
}

/** What both hosts know of one migration. A host that cannot be reached is a problem in the view, no error. */
export async function observe(
  { source, destination }: Pick<Context, "source" | "destination">,
  id: string,
): Promise<View> {
  const askSource = () => reached(() => source.ask("source.list", { id }, lookOptions(source)));
  const [first, destinations] = await Promise.all([
    askSource(),
    reached(() => destination.ask("destination.list", { id }, lookOptions(destination))),
  ]);
  // It may have ended in between, source first: then an export is not there any more, either.
  const isAlone = destinations.answer?.length === 0 && first.answer !== undefined && first.answer.length > 0;
  const sources = isAlone ? await askSource() : first;
  return {
    id,
    disks: disksOf(id, sources.answer ?? [], destinations.answer ?? []),
    sourceProblem: sources.problem,
    destinationProblem: destinations.problem,
    isSourceKnown: sources.problem === null,
  };
}

/** As `observe`; throws PreconditionError if nobody knows the id. */
export async function observeKnown(context: Context, id: string): Promise<View> {
  const view = await observe(context, id);
  if (view.disks.length > 0) return view;
  const problem = view.destinationProblem ?? view.sourceProblem;
  if (problem !== null) throw new PreconditionError(`nobody can tell where ${id} stands: ${problem}`);
  throw new PreconditionError(`there is no migration ${id}`, {
    hint: "dlsm status lists them; --host HOST looks on another host",
  });
}

/** Throws PreconditionError if nobody knows the id. */
export async function statusById(context: Context, id: string): Promise<MigrationStatus> {
  return statusOf(await observeKnown(context, id));
}

/** What a migration that is done last was; undefined: it did not end there, or long ago. */
export async function endedStatusAt(destination: Host, id: string): Promise<MigrationStatus | undefined> {
  const disks = await destination.ask("destination.ended", { id }, lookOptions(destination));
  const entries = disks.map(({ entry }) => entry);
  return entries.length === 0
    ? undefined
    : endedStatus(statusOf(viewOf(id, [], entries)), entries[0].driverNote);
}

export interface Reached<T> {
  /** Undefined if the host could not be asked. */
  readonly answer: T | undefined;
  readonly problem: string | null;
}

/** So long another host may take to say what it has; somebody may have to type a password first. */
const lookTimeoutMs = process.stdin.isTTY === true ? 60_000 : 10_000;

export function lookOptions({ reach }: Host): AskOptions {
  return reach === null ? {} : { timeoutMs: lookTimeoutMs };
}

/** Asks a host that may be out of reach. */
export async function reached<T>(ask: () => Promise<T>): Promise<Reached<T>> {
  try {
    return { answer: await ask(), problem: null };
  } catch (error) {
    if (!(error instanceof UnreachableError) && !(error instanceof RpcTimeoutError)) throw error;
    return { answer: undefined, problem: messageOf(error) };
  }
}
