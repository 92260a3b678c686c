/** What the commands of a migration work with: the hosts of its two roles, and where to report. */
import { PreconditionError } from "../lib/errors.ts";
import type { MigrationStatus, Reporter } from "../report/mod.ts";
import type { DestinationEntry, Host, SourceEntry } from "../role/mod.ts";
import { statusesOf, statusOf } from "./status.ts";

export interface Context {
  readonly source: Host;
  readonly destination: Host;
  readonly reporter: Reporter;
  /** Aborted by Ctrl-C and its like; looked at between steps. */
  readonly signal: AbortSignal;
}

export interface Entries {
  readonly source: SourceEntry | undefined;
  readonly destination: DestinationEntry | undefined;
}

/** What both roles know of one migration. */
export async function entriesOf({ source, destination }: Context, id: string): Promise<Entries> {
  const [sources, destinations] = await Promise.all([
    source.ask("source.list", { id }),
    destination.ask("destination.list", { id }),
  ]);
  return { source: sources[0], destination: destinations[0] };
}

/** As `entriesOf`; throws PreconditionError if nobody knows the id. */
export async function knownEntries(context: Context, id: string): Promise<Entries> {
  const entries = await entriesOf(context, id);
  if (entries.source === undefined && entries.destination === undefined) {
    throw new PreconditionError(`there is no migration ${id}`, { hint: "dlsm status lists them" });
  }
  return entries;
}

export async function allStatuses({ source, destination }: Context): Promise<MigrationStatus[]> {
  return statusesOf(await source.ask("source.list", {}), await destination.ask("destination.list", {}));
}

/** Throws PreconditionError if nobody knows the id. */
export async function statusById(context: Context, id: string): Promise<MigrationStatus> {
  return statusFrom(await knownEntries(context, id))!;
}

/** Undefined if nobody knows the id (any more). */
export async function findStatus(context: Context, id: string): Promise<MigrationStatus | undefined> {
  return statusFrom(await entriesOf(context, id));
}

function statusFrom({ source, destination }: Entries): MigrationStatus | undefined {
  if (destination !== undefined) return statusOf(destination, source);
  return source === undefined ? undefined : statusesOf([source], [])[0];
}
