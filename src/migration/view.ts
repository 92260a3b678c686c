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
}

/** The part of a view that says what the disks are; the hosts have answered. */
export function viewOf(
  id: string,
  sources: readonly SourceEntry[],
  destinations: readonly DestinationEntry[],
): View {
  return { id, disks: disksOf(id, sources, destinations), sourceProblem: null, destinationProblem: null };
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
