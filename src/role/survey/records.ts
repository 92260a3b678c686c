/** What the journals of this host say that somebody has to see to: cut short, unreadable, stopped. */
import { existsSync, statfsSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { acquire } from "../../lib/lock.ts";
import { formatSize } from "../../lib/units.ts";
import { type RoleFolders, roleFolders, type RoleName } from "../layout.ts";
import { type DestinationEntry, migrationOf, type SourceEntry } from "../messages.ts";
import { type Finding, missing, note, ok, stray } from "./finding.ts";

/** Steps follow one another faster than this, unless whoever took them is gone. */
const abandonedMs = 60_000;

export interface Entries {
  readonly sources: readonly SourceEntry[];
  readonly destinations: readonly DestinationEntry[];
}

/** Whether something is not there that a driver puts right within moments: perhaps it is about to. */
export function mayMend({ sources, destinations }: Entries): boolean {
  return sources.some(({ state, tgtdPid }) => state === "exported" && tgtdPid === null) ||
    destinations.some((entry) => entry.state === "attached" && (entry.engine === null || isUndriven(entry)));
}

const isUndriven = ({ isActivated, driverPid }: DestinationEntry) => isActivated && driverPid === null;

export function recordFindings(folders: RoleFolders, { sources, destinations }: Entries): Finding[] {
  return [
    ...sources.map((entry) => exportFinding(folders, entry, destinations)),
    ...destinations.flatMap((entry) => [volumeFinding(folders, entry), ...spaceFindings(entry)]),
  ];
}

function exportFinding(
  folders: RoleFolders,
  entry: SourceEntry,
  destinations: readonly DestinationEntry[],
): Finding {
  const { id, state, source, problem, tgtdPid } = entry;
  const what = `export of ${source.path} (${id})`;
  const release = `dlsm release ${migrationOf(id)}`;
  if (problem !== null) return unreadable(id, problem, release);
  if (state === "releasing" && isAbandoned(folders, "source", id)) {
    return stray("export", id, `the release of the ${what} was cut short`, release);
  }
  if (state === "exporting" && isAbandoned(folders, "source", id)) {
    const isHere = destinations.some((each) => each.id === id);
    const remedy = isHere ? resumeOrAbort(id) : `${release}, or dlsm resume where its destination is`;
    return stray("export", id, `the set-up of the ${what} was cut short`, remedy);
  }
  if (entry.danger !== null) {
    return missing(
      "export",
      id,
      `the source of ${id} is in danger: ${entry.danger}`,
      `stop who writes ${source.path}: what is written there since the hand-off is lost or mixed in`,
    );
  }
  if (state === "exported" && tgtdPid === null) {
    const remedy = `dlsm resume ${migrationOf(id)}`;
    return stray("export", id, `the ${what} is not served: its tgtd is gone`, remedy);
  }
  return ok("export", id, `the ${what} is ${state}`);
}

function volumeFinding(folders: RoleFolders, entry: DestinationEntry): Finding {
  const { id, state, problem, destination, engine } = entry;
  if (!entry.isReadable) return unreadable(id, problem ?? "", entry.remedy ?? resumeOrAbort(id));
  const what = `${destination.path} (${id})`;
  if (state === "aborting" && isAbandoned(folders, "destination", id)) {
    return stray("volume", id, `the abort of ${what} was cut short`, `dlsm abort ${migrationOf(id)}`);
  }
  const isBeginning = state === "planned" || state === "attaching";
  if (isBeginning && isAbandoned(folders, "destination", id)) {
    return stray("volume", id, `the set-up of ${what} was cut short`, resumeOrAbort(id));
  }
  if (entry.goesBackAs !== null && isAbandoned(folders, "destination", id)) {
    const migration = migrationOf(id);
    const remedy = `dlsm failback ${migration} (it goes back), or dlsm resume ${migration} (it stays)`;
    return stray("volume", id, `the way back of ${what} was cut short`, remedy);
  }
  if (state === "finishing" && isAbandoned(folders, "destination", id)) {
    return stray("volume", id, `the cut-over of ${what} was cut short`, `dlsm resume ${migrationOf(id)}`);
  }
  if (problem !== null && engine !== null) {
    return missing("volume", id, problem, `see dlsm status ${migrationOf(id)}`);
  }
  const resume = `dlsm resume ${migrationOf(id)}`;
  if (problem !== null) return stray("volume", id, problem, entry.remedy ?? resume);
  if (state === "attached" && isUndriven(entry)) {
    return stray("volume", id, `nobody drives the migration of ${what} to its end`, resume);
  }
  return ok("volume", id, `${what} is ${engine?.state ?? state}`);
}

/** Room for a file that may still grow. */
function spaceFindings({ id, isReadable, destination, sizeBytes }: DestinationEntry): Finding[] {
  if (!isReadable) return [];
  try {
    const stats = statSync(destination.path, { throwIfNoEntry: false });
    if (stats !== undefined && !stats.isFile()) return [];
    const { bavail, bsize } = statfsSync(dirname(destination.path));
    const needBytes = Math.max(0, sizeBytes - (stats?.blocks ?? 0) * 512);
    const message = `${destination.path} may still grow by ${
      formatSize(needBytes)
    }, and its file system has ${formatSize(bavail * bsize)} left`;
    if (needBytes <= bavail * bsize) return [ok("space", id, message)];
    const remedy = "make space there; if it runs out, the sync stops and goes on with dlsm resume";
    return [note("space", id, message, remedy)];
  } catch {
    return []; // The volume's own finding says that its disk is not there.
  }
}

function unreadable(id: string, problem: string, remedy: string): Finding {
  return stray("journal", id, `${id}: ${problem}`, `${remedy}; nothing of it is removed by itself`);
}

const resumeOrAbort = (id: string) => `dlsm resume ${migrationOf(id)}, or dlsm abort ${migrationOf(id)}`;

/** Nobody works on it: nothing was written down for a while, and nobody holds its lock. */
function isAbandoned(folders: RoleFolders, role: RoleName, id: string): boolean {
  const { state, run } = roleFolders(folders, role, id);
  const stats = statSync(`${state}/journal`, { throwIfNoEntry: false });
  if (stats === undefined || Date.now() - stats.mtimeMs < abandonedMs) return false;
  if (!existsSync(run)) return true;
  const lock = acquire(run);
  lock?.release();
  return lock !== undefined;
}
