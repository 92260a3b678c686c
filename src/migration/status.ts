/** A migration's status out of what its two roles say. Pure. */
import { conditionOf, type DiskStatus, type MigrationStatus, phases, type Place } from "../report/mod.ts";
import { type DestinationEntry, type Endpoint, migrationOf, type SourceEntry } from "../role/mod.ts";
import { cutOff, destinationsOf, isLost, phaseOf, type View, viewsOf } from "./view.ts";

/** One status for each migration that either list names, the oldest first. */
export function statusesOf(
  sources: readonly SourceEntry[],
  destinations: readonly DestinationEntry[],
): MigrationStatus[] {
  return sorted(viewsOf(sources, destinations).map(statusOf));
}

export function sorted(statuses: readonly MigrationStatus[]): MigrationStatus[] {
  return statuses.toSorted((a, b) => a.createdAt.localeCompare(b.createdAt));
}

/** The status of a migration of which a host knows something. */
export function statusOf(view: View): MigrationStatus {
  const entries = destinationsOf(view);
  const [first] = entries;
  if (first === undefined) return exportStatus(view);
  const exported = view.disks.find(({ destination }) => destination === first)?.source;
  const disks = view.disks.flatMap(({ destination, source }) =>
    destination === undefined ? [] : [diskStatus(destination, source)]
  );
  const condition = conditionOf(disks);
  return {
    id: view.id,
    phase: phases.find((phase) => entries.some((entry) => phaseOf(entry) === phase))!,
    handoff: first.options.handoff,
    createdAt: first.isReadable ? first.createdAt : exported?.createdAt ?? "",
    source: placeOf(placesOf(first, exported).source),
    destination: placeOf(placesOf(first, exported).destination),
    disks,
    ...condition,
    // The last one says least: the others say what it comes from.
    lastError: condition.lastError ?? cutOffProblem(view) ?? first.driverNote ?? view.sourceProblem ??
      sourceErrorOf(entries),
  };
}

/** Its part at the source was taken away, this one was not. */
function cutOffProblem(view: View): string | null {
  const entry = cutOff(view);
  if (entry === undefined) return null;
  const { isActivated, source: { host } } = entry;
  return isActivated
    ? `its source was released on ${host}, and not all of it is here: dlsm resume ${view.id} says what is left`
    : `its source was released on ${host}, and nothing was handed over: dlsm abort ${view.id} takes away what is here`;
}

/** Why the first disk that waits for its source cannot reach it. */
function sourceErrorOf(entries: readonly DestinationEntry[]): string | null {
  return entries.find(isLost)?.engine?.sourceError ?? null;
}

/** Where a destination's journal cannot be read, the source's may know. */
function placesOf(entry: DestinationEntry, source: SourceEntry | undefined) {
  if (entry.isReadable) return entry;
  return { source: source?.source ?? entry.source, destination: source?.destination ?? entry.destination };
}

function placeOf({ host, path }: Endpoint): Place {
  return { host, path };
}

function diskStatus(entry: DestinationEntry, source: SourceEntry | undefined): DiskStatus {
  const { engine, stored } = entry;
  return {
    source: placesOf(entry, source).source.path,
    destination: placesOf(entry, source).destination.path,
    sizeBytes: entry.sizeBytes,
    blockBytes: entry.blockBytes,
    residentBytes: engine?.residentBytes ?? stored?.residentBytes ?? 0,
    writtenBytes: engine?.writtenBytes ?? stored?.writtenBytes ?? 0,
    fetchedBytes: engine?.fetchedBytes ?? { demand: 0, readahead: 0, sync: 0 },
    refetchedBytes: engine?.refetchedBytes ?? 0,
    holeBytes: engine?.holeBytes ?? 0,
    overwrittenBytes: engine?.overwrittenBytes ?? 0,
    // Not in what older versions remember of migrations that have ended.
    verified: entry.verified ?? null,
    verifiedBytes: entry.verifiedBytes ?? 0,
    nbdUri: engine === null ? null : nbdUriOf(entry.nbdSocket),
    device: null,
    enginePid: engine?.pid ?? null,
    rateBytesPerSecond: engine?.rateBytesPerSecond ?? 0,
    etaSeconds: engine?.etaSeconds ?? null,
    paused: engine?.sync === "paused",
    waitingForSource: isLost(entry),
    lastError: problemOf(entry, source),
  };
}

/** What holds the migration up, in words; null if nothing does. */
function problemOf(entry: DestinationEntry, source: SourceEntry | undefined): string | null {
  if (entry.state === "planned" || entry.state === "attaching") {
    return entry.driverPid === null ? "the command that set it up was cut short" : null;
  }
  if (entry.state === "aborting") {
    return `its abort was cut short: dlsm abort ${migrationOf(entry.id)} finishes it`;
  }
  if (entry.goesBackAs !== null) {
    const id = migrationOf(entry.id);
    if (entry.state === "thawing") {
      return `it was going back, and that is being undone: dlsm resume ${id} finishes that`;
    }
    return `it is going back as ${migrationOf(entry.goesBackAs)}: dlsm failback ${id} goes on with that, ` +
      `dlsm resume ${id} stays here`;
  }
  if (entry.problem !== null) {
    return entry.remedy === null ? entry.problem : `${entry.problem}: ${entry.remedy}`;
  }
  if (source !== undefined && source.danger !== null && !entry.isReleased) return source.danger;
  if (entry.verified === "different") {
    return "verification found a difference between source and destination: the source is kept";
  }
  if (entry.engine?.lastError != null) return entry.engine.lastError;
  if (source !== undefined && source.problem !== null) return source.problem;
  const isNeeded = source !== undefined && isLost(entry);
  return isNeeded && source.tgtdPid === null ? "tgtd, which exports the source, does not run" : null;
}

/** Exports whose destination is not known here. */
function exportStatus({ id, disks, sourceProblem, destinationProblem }: View): MigrationStatus {
  const sources = disks.flatMap(({ source }) => source === undefined ? [] : [source]);
  const [first] = sources;
  const problems = [
    ...sources.map(exportProblem),
    destinationProblem,
    sourceProblem,
    orphanProblem(id, first),
  ];
  return {
    id,
    phase: "exported",
    handoff: "manual",
    createdAt: first.createdAt,
    source: placeOf(first.source),
    destination: first.destination === null ? { host: null, path: "" } : placeOf(first.destination),
    disks: [],
    paused: false,
    waitingForSource: false,
    lastError: problems.find((problem) => problem !== null) ?? null,
  };
}

function exportProblem({ id, state, destination, problem, danger, tgtdPid }: SourceEntry): string | null {
  if (problem !== null) return problem;
  if (state === "releasing") {
    const command = destination === null ? "release" : "abort";
    return `its release was cut short: dlsm ${command} ${migrationOf(id)} finishes it`;
  }
  if (danger !== null) return danger;
  // One that nobody needs any more.
  if (destination !== null) return null;
  return tgtdPid === null ? "tgtd, which exports it, does not run" : null;
}

/** The destination's host has answered, and has no record: its part was taken away, this one was not. */
function orphanProblem(id: string, { destination }: SourceEntry): string | null {
  if (destination === null) return null;
  return `its destination, ${destination.host}, knows nothing of it: dlsm abort ${id} takes the export away`;
}

export function nbdUriOf(socketPath: string): string {
  return `nbd+unix:///?socket=${
    encodeURI(socketPath).replaceAll("?", "%3F").replaceAll("#", "%23").replaceAll("&", "%26").replaceAll(
      ";",
      "%3B",
    )
  }`;
}

/** The last status of a migration that is done; `danger`: what was seen done to its source meanwhile. */
export function endedStatus(status: MigrationStatus, danger: string | null): MigrationStatus {
  return { ...status, phase: "done", disks: status.disks.map(ended), lastError: danger };
}

function ended<T extends { readonly nbdUri: string | null; readonly enginePid: number | null }>(disk: T): T {
  return { ...disk, nbdUri: null, enginePid: null, rateBytesPerSecond: 0, etaSeconds: 0 };
}
