/** A migration's status out of what its two roles say. Pure. */
import { conditionOf, type DiskStatus, type MigrationStatus, type Phase } from "../report/mod.ts";
import type { DestinationEntry, SourceEntry } from "../role/mod.ts";

/** One status for each migration that either role knows, the oldest first. */
export function statusesOf(
  sources: readonly SourceEntry[],
  destinations: readonly DestinationEntry[],
): MigrationStatus[] {
  const statuses = destinations.map((entry) => statusOf(entry, sources.find(({ id }) => id === entry.id)));
  for (const source of sources) {
    if (!destinations.some(({ id }) => id === source.id)) statuses.push(exportStatus(source));
  }
  return statuses.sort((a, b) => a.createdAt.localeCompare(b.createdAt));
}

export function statusOf(entry: DestinationEntry, source: SourceEntry | undefined): MigrationStatus {
  const disk = diskStatus(entry, source);
  return {
    id: entry.id,
    phase: phaseOf(entry),
    handoff: entry.options.handoff,
    createdAt: entry.isReadable ? entry.createdAt : source?.createdAt ?? "",
    source: placesOf(entry, source).source,
    destination: placesOf(entry, source).destination,
    disks: [disk],
    ...conditionOf([disk]),
  };
}

/** Where a destination's journal cannot be read, the source's may know. */
function placesOf(entry: DestinationEntry, source: SourceEntry | undefined) {
  if (entry.isReadable) return entry;
  return { source: source?.source ?? entry.source, destination: source?.destination ?? entry.destination };
}

export function phaseOf(entry: DestinationEntry): Phase {
  if (entry.state === "planned" || entry.state === "attaching") return "exported";
  if (entry.state === "finishing" || entry.isReleased) return "released";
  if (!entry.isActivated) return "attached";
  return entry.engine?.state === "synced" ? "synced" : "active";
}

function diskStatus(entry: DestinationEntry, source: SourceEntry | undefined): DiskStatus {
  const { engine, stored } = entry;
  const needsSource = engine !== null && !engine.isSourceDetached && engine.state !== "synced";
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
    nbdUri: engine === null ? null : nbdUriOf(entry.nbdSocket),
    device: null,
    enginePid: engine?.pid ?? null,
    rateBytesPerSecond: engine?.rateBytesPerSecond ?? 0,
    etaSeconds: engine?.etaSeconds ?? null,
    paused: engine?.sync === "paused",
    waitingForSource: needsSource && !engine.isConnected,
    lastError: problemOf(entry, source),
  };
}

/** What holds the migration up, in words; null if nothing does. */
function problemOf(entry: DestinationEntry, source: SourceEntry | undefined): string | null {
  if (entry.state === "planned" || entry.state === "attaching") {
    return "the command that set it up was cut short";
  }
  if (entry.state === "aborting") return `its abort was cut short: dlsm abort ${entry.id} finishes it`;
  if (entry.problem !== null) {
    return entry.remedy === null ? entry.problem : `${entry.problem}: ${entry.remedy}`;
  }
  if (entry.verified === "different") {
    return "verification found a difference between source and destination: the source is kept";
  }
  if (entry.engine?.lastError != null) return entry.engine.lastError;
  if (source !== undefined && source.problem !== null) return source.problem;
  const isGone = source !== undefined && source.tgtdPid === null && !entry.isReleased;
  if (isGone && entry.engine !== null && !entry.engine.isConnected) {
    return "tgtd, which exports the source, does not run";
  }
  return null;
}

/** An export that no destination on this host belongs to. */
function exportStatus(source: SourceEntry): MigrationStatus {
  const lastError = source.problem ??
    (source.state === "releasing"
      ? `its release was cut short: dlsm release ${source.id} finishes it`
      : null) ??
    (source.tgtdPid === null ? "tgtd, which exports it, does not run" : null);
  return {
    id: source.id,
    phase: "exported",
    handoff: "manual",
    createdAt: source.createdAt,
    source: source.source,
    destination: source.destination ?? { host: null, path: "" },
    disks: [],
    paused: false,
    waitingForSource: false,
    lastError,
  };
}

export function nbdUriOf(socketPath: string): string {
  return `nbd+unix:///?socket=${
    encodeURI(socketPath).replaceAll("?", "%3F").replaceAll("#", "%23").replaceAll("&", "%26").replaceAll(
      ";",
      "%3B",
    )
  }`;
}
