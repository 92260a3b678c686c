/** Which hosts have the two roles of a migration, found by asking those that come into question. */
import { FailedError } from "../lib/errors.ts";
import type { MigrationStatus } from "../report/mod.ts";
import type { DestinationEntry, Host, SourceEntry } from "../role/mod.ts";
import type { AddressBook } from "./address-book.ts";
import { endedStatusAt, lookOptions, reached } from "./context.ts";
import { sorted, statusOf } from "./status.ts";
import { destinationsOf, type View, viewsOf } from "./view.ts";

/** The hosts that a command can ask. */
export interface Hosts {
  /** By how ssh reaches them; null: this machine. */
  at(reach: string | null): Host;
  readonly book: AddressBook;
  /** Named by the user, to be looked on too. */
  readonly named: readonly string[];
}

/** What one host has. */
interface Holdings {
  readonly host: Host;
  readonly sources: readonly SourceEntry[];
  readonly destinations: readonly DestinationEntry[];
  /** Why it could not be asked. */
  readonly problem: string | null;
}

/**
 * The hosts of one migration; the same one twice if it has both roles. One that nobody knows, or whose host
 * cannot be asked, is looked for where its other host, or the book, says that it is. Throws FailedError if no
 * host knows the migration and one could not be asked; if none knows it, both are this machine.
 */
export async function findHosts(hosts: Hosts, id: string): Promise<{ source: Host; destination: Host }> {
  const known = hosts.book.find(id);
  const places = [null, ...hosts.named, ...(known === undefined ? [] : [known.destination, known.source])];
  const all = await holdings(hosts, places, id);
  const ofSource = all.find(({ sources }) => sources.length > 0);
  const ofDestination = all.find(({ destinations }) => destinations.length > 0);
  const problem = all.find((each) => each.problem !== null)?.problem;
  if (ofSource === undefined && ofDestination === undefined) {
    if (problem == null) return { source: hosts.at(null), destination: hosts.at(null) };
    throw new FailedError(`nobody can tell where ${id} stands: ${problem}`, {
      hint: "give the command again when that host can be reached; --host HOST looks on another one",
    });
  }
  const source = ofSource?.host ??
    other(hosts, ofDestination!, ofDestination!.destinations[0].source.reach, known?.source);
  const destination = ofDestination?.host ??
    other(hosts, ofSource!, ofSource!.sources[0].destination?.reach, known?.destination);
  return { source, destination };
}

/** What a migration that is done last was, if a host that comes into question still knows. */
export async function findEnded(hosts: Hosts, id: string): Promise<MigrationStatus | undefined> {
  const noted = hosts.book.find(id)?.destination;
  const places = new Set([null, ...hosts.named, ...(noted === undefined ? [] : [noted])]);
  for (const reach of places) {
    const { answer } = await reached(() => endedStatusAt(hosts.at(reach), id));
    if (answer !== undefined) return answer;
  }
  return undefined;
}

/**
 * The status of every migration that this machine and the hosts named know, and of those that were begun
 * here. Where only the source is known, its destination is asked.
 */
export async function allStatuses(hosts: Hosts): Promise<MigrationStatus[]> {
  const entries = hosts.book.ids().map((id) => ({ id, known: hosts.book.find(id) }));
  const noted = entries.flatMap(({ known }) => known === undefined ? [] : [known.destination, known.source]);
  const all = await holdings(hosts, [null, ...hosts.named, ...noted]);
  const views = viewsOf(
    all.flatMap(({ sources }) => sources),
    all.flatMap(({ destinations }) => destinations),
  );
  const problems = all.filter(({ problem }) => problem !== null);
  for (const { id } of entries) {
    if (views.some((view) => view.id === id)) continue;
    // It has ended, if everybody was asked.
    if (problems.length === 0) hosts.book.remove(id);
  }
  return sorted(await Promise.all(views.map((view) => completed(hosts, all, view))));
}

/** Asks the destination of an export that no host so far has. */
async function completed(hosts: Hosts, all: readonly Holdings[], view: View): Promise<MigrationStatus> {
  if (destinationsOf(view).length > 0) return statusOf(view);
  const known = hosts.book.find(view.id)?.destination ?? view.disks[0].source?.destination?.reach ?? null;
  if (known === null) return statusOf(view);
  const asked = all.find(({ host }) => host.reach === known) ?? await holdingsOf(hosts.at(known), view.id);
  const sources = view.disks.flatMap(({ source }) => source === undefined ? [] : [source]);
  const [whole] = viewsOf(sources, asked.destinations).filter(({ id }) => id === view.id);
  return statusOf({ ...whole, destinationProblem: asked.problem });
}

function other(
  { at }: Hosts,
  { host }: Holdings,
  reach: string | null | undefined,
  noted: string | null | undefined,
): Host {
  if (noted !== undefined) return at(noted);
  // Without a way of its own it is the same host.
  return reach == null ? host : at(reach);
}

async function holdings(hosts: Hosts, places: readonly (string | null)[], id?: string): Promise<Holdings[]> {
  return await Promise.all([...new Set(places)].map((reach) => holdingsOf(hosts.at(reach), id)));
}

async function holdingsOf(host: Host, id?: string): Promise<Holdings> {
  const which = id === undefined ? {} : { id };
  const { answer, problem } = await reached(async () => ({
    sources: await host.ask("source.list", which, lookOptions(host)),
    destinations: await host.ask("destination.list", which, lookOptions(host)),
  }));
  return { host, sources: answer?.sources ?? [], destinations: answer?.destinations ?? [], problem };
}
