/** Which hosts have the two roles of a migration, found by asking those that come into question. */
import { FailedError } from "../lib/errors.ts";
import type { MigrationStatus } from "../report/mod.ts";
import type { DestinationEntry, Endpoint, Host, SourceEntry } from "../role/mod.ts";
import type { AddressBook } from "./address-book.ts";
import { endedStatusAt, lookOptions, observe, reached } from "./context.ts";
import { checkedHost, isSameHost, unknownHost, type Wanted } from "./other-host.ts";
import { sorted, statusOf } from "./status.ts";
import { destinationsOf, disksOf, type View, viewsOf } from "./view.ts";

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
  readonly hostId: string | null;
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
  const source = ofSource?.host ?? other(hosts, all, ofDestination!, {
    end: ofDestination!.destinations[0].source,
    of: `the source of ${id}`,
    noted: known?.source,
  });
  const destination = ofDestination?.host ?? other(hosts, all, ofSource!, {
    end: ofSource!.sources[0].destination,
    of: `the destination of ${id}`,
    noted: known?.destination,
  });
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
  return sorted((await Promise.all(views.map((view) => completed(hosts, all, view)))).flat());
}

/** Asks the destination of an export that no host so far has; empty if it has all ended meanwhile. */
async function completed(hosts: Hosts, all: readonly Holdings[], view: View): Promise<MigrationStatus[]> {
  if (destinationsOf(view).length > 0) return [statusOf(view)];
  const sources = view.disks.flatMap(({ source }) => source === undefined ? [] : [source]);
  const [{ source: here, destination: end }] = sources;
  // Exported by hand.
  if (end === null) return [statusOf(view)];
  const source = all.find((each) => each.sources.some(({ id }) => id === sources[0].id))!.host;
  const noted = hosts.book.find(view.id)?.destination;
  const destination = isSameHost(here, end)
    ? source
    : otherEnd(hosts, all, { end, of: `the destination of ${view.id}`, noted });
  const silent = all.find(({ host, problem }) =>
    problem !== null && (host === destination || host.reach === destination.reach)
  );
  if (silent !== undefined) return [statusOf({ ...view, destinationProblem: silent.problem })];
  const whole = await observe({ source, destination }, view.id);
  // Its export was there a moment ago.
  if (whole.sourceProblem !== null) {
    return [statusOf({ ...whole, disks: disksOf(view.id, sources, destinationsOf(whole)) })];
  }
  return whole.disks.length === 0 ? [] : [statusOf(whole)];
}

/** What is known of the end that no host was found to have. */
interface Sought extends Omit<Wanted, "end"> {
  /** As the other end's record has it; null: that was made by hand. */
  readonly end: Endpoint | null;
  /** As the address book has it; null: this machine. */
  readonly noted: string | null | undefined;
}

function other(hosts: Hosts, all: readonly Holdings[], found: Holdings, { end, of, noted }: Sought): Host {
  const { sources: [source], destinations: [destination] } = found;
  const own = source?.source ?? destination.destination;
  if (end?.hostId == null && noted !== undefined) return hosts.at(noted);
  if (end === null || isSameHost(own, end)) return found.host;
  return otherEnd(hosts, all, { end, of, noted });
}

/** One that was asked already if it is that, or the one where it is said to be: that has to prove it. */
function otherEnd({ at }: Hosts, all: readonly Holdings[], { end, of, noted }: Sought & Wanted): Host {
  if (end.hostId === null) return at(noted ?? end.reach);
  const asked = all.find(({ hostId }) => hostId === end.hostId);
  if (asked !== undefined) return asked.host;
  const reach = noted ?? end.reach;
  return reach === null ? unknownHost({ end, of }) : checkedHost(at(reach), { end, of });
}

async function holdings(hosts: Hosts, places: readonly (string | null)[], id?: string): Promise<Holdings[]> {
  return await Promise.all([...new Set(places)].map((reach) => holdingsOf(hosts.at(reach), id)));
}

async function holdingsOf(host: Host, id?: string): Promise<Holdings> {
  const which = id === undefined ? {} : { id };
  const { answer, problem } = await reached(async () => ({
    hostId: (await host.facts(lookOptions(host))).hostId,
    sources: await host.ask("source.list", which, lookOptions(host)),
    destinations: await host.ask("destination.list", which, lookOptions(host)),
  }));
  return {
    host,
    hostId: answer?.hostId ?? null,
    sources: answer?.sources ?? [],
    destinations: answer?.destinations ?? [],
    problem,
  };
}
