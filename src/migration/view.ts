/** What both hosts say of one migration, disk by disk. Pure. */
import type { Phase } from "../report/mod.ts";
import { type DestinationEntry, migrationOf, type SourceEntry } from "../role/mod.ts";

export interface DiskView {
  /** Names the disk on both hosts. */
  readonly id: string;
  readonly source: SourceEntry | undefined;
  readonly destination: DestinationEntry | undefined;
}

export interface View {
  /** The migration. */
  readonly id: string;
  /** The disks that a host knows, in order. */
  readonly disks: readonly DiskView[];
  /** Why a host could not be asked, so that nothing is known of what it has; null: it has answered. */
  readonly sourceProblem: string | null;
  readonly destinationProblem: string | null;
  /** The source's host was asked: an export that is not in the view is not there. */
  readonly isSourceKnown: boolean;
}

/** The part of a view that says what the disks are; those who were asked have answered. */
export function viewOf(
  id: string,
  sources: readonly SourceEntry[],
  destinations: readonly DestinationEntry[],
): View {
  return {
    id,
    disks: disksOf(id, sources, destinations),
    sourceProblem: null,
    destinationProblem: null,
    isSourceKnown: false,
  };
}

/** A view for each migration that either list names. */
export function viewsOf(
  sources: readonly SourceEntry[],
  destinations: readonly DestinationEntry[],
): View[] {
  const ids = new Set([...destinations, ...sources].map(({ id }) => migrationOf(id)));
  return [...ids].map((id) => viewOf(id, sources, destinations));
}

export function disksOf(
  id: string,
  sources: readonly SourceEntry[],
  destinations: readonly DestinationEntry[],
): DiskView[] {
  const ids = new Set([...sources, ...destinations].map((entry) => entry.id));
  return [...ids].filter((each) => migrationOf(each) === id)
    .sort((a, b) => numberOf(a) - numberOf(b))
    .map((diskId) => ({
      id: diskId,
      source: sources.find((entry) => entry.id === diskId),
      destination: destinations.find((entry) => entry.id === diskId),
    }));
}

/** The disk's place among the migration's. */
function numberOf(diskId: string): number {
  return Number(diskId.split("-")[1] ?? 1);
}

/** The ids of a migration's disks. */
export function diskIds(id: string, count: number): string[] {
  return count === 1 ? [id] : Array.from({ length: count }, (_, index) => `${id}-${index + 1}`);
}

/** The destinations that the view has. */
export function destinationsOf(view: Pick<View, "disks">): DestinationEntry[] {
  return view.disks.flatMap(({ destination }) => destination === undefined ? [] : [destination]);
}

export function phaseOf(entry: DestinationEntry): Phase {
  if (entry.state === "planned" || entry.state === "attaching") return "exported";
  if (entry.state === "finishing" || entry.isReleased) return "released";
  if (!entry.isActivated) return "attached";
  return entry.engine?.state === "synced" ? "synced" : "active";
}

/** The engine needs its source and is not logged in. */
export function isLost({ engine, isReleased }: DestinationEntry): boolean {
  const needsSource = engine !== null && !engine.isSourceDetached && engine.state !== "synced" && !isReleased;
  return needsSource && !engine.isConnected;
}

/** A destination whose export is known to be gone before it was whole; undefined: there is none. */
export function cutOff(view: View): DestinationEntry | undefined {
  if (!view.isSourceKnown) return undefined;
  return view.disks.find(({ source, destination: entry }) => {
    if (source !== undefined || entry === undefined || entry.options.byTicket) return false;
    const isWhole = entry.engine === null
      ? entry.stored?.residentBytes === entry.sizeBytes
      : entry.engine.state === "synced";
    return entry.state === "attached" && !entry.isReleased && !(entry.isActivated && isWhole);
  })?.destination;
}
