/** The status of a migration, as `--json` prints it (stable), and the same in a line or two for people. Pure. */
import { formatDuration, formatSize } from "../lib/units.ts";

/** In order; `aborted` can follow the first two. */
export const phases = ["exported", "attached", "active", "synced", "released", "done", "aborted"] as const;

export type Phase = (typeof phases)[number];

export interface Place {
  /** As ssh knows it; null for this machine. */
  readonly host: string | null;
  readonly path: string;
}

export interface Condition {
  /** The background sync is paused by the user. */
  readonly paused: boolean;
  /** The source cannot be reached; reads of what is not here yet wait for it. */
  readonly waitingForSource: boolean;
  /** What stopped the sync or the command, in words; null if nothing did. */
  readonly lastError: string | null;
}

export interface DiskStatus extends Condition {
  readonly source: string;
  readonly destination: string;
  readonly sizeBytes: number;
  /** The unit of tracking. */
  readonly blockBytes: number;
  /** What the destination has, however it came there. */
  readonly residentBytes: number;
  /** The part of it that was written, zeroed or trimmed there. */
  readonly writtenBytes: number;
  readonly fetchedBytes: { readonly demand: number; readonly readahead: number; readonly sync: number };
  /** Fetched although it was there already. */
  readonly refetchedBytes: number;
  /** Known to be zero on the source, so never moved. */
  readonly holeBytes: number;
  /** Written at the destination before it was fetched, so never moved. */
  readonly overwrittenBytes: number;
  /** The hashes of both sides: the same when all was here, different whenever that was seen; null: neither yet. */
  readonly verified: "same" | "different" | null;
  /** What was compared for it. */
  readonly verifiedBytes: number;
  /** nbd+unix:///?socket=PATH while the engine serves; else null. */
  readonly nbdUri: string | null;
  /** /dev/mapper/NAME if one was asked for; else null. */
  readonly device: string | null;
  /** null while no engine runs. */
  readonly enginePid: number | null;
  readonly rateBytesPerSecond: number;
  /** null if it cannot be known. */
  readonly etaSeconds: number | null;
}

export interface MigrationStatus extends Condition {
  readonly id: string;
  readonly phase: Phase;
  readonly handoff: string;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
  readonly source: Place;
  readonly destination: Place;
  readonly disks: readonly DiskStatus[];
}

/** A migration's condition out of its disks': what holds for one of them, and the first error. */
export function conditionOf(disks: readonly Condition[]): Condition {
  return {
    paused: disks.some(({ paused }) => paused),
    waitingForSource: disks.some(({ waitingForSource }) => waitingForSource),
    lastError: disks.find(({ lastError }) => lastError !== null)?.lastError ?? null,
  };
}

/** How far all disks are together. */
export interface Progress {
  readonly sizeBytes: number;
  readonly residentBytes: number;
  readonly rateBytesPerSecond: number;
  /** Of the disk that takes longest; null if one cannot be known. */
  readonly etaSeconds: number | null;
}

export function progressOf({ disks }: Pick<MigrationStatus, "disks">): Progress {
  const sum = (pick: (disk: DiskStatus) => number) => disks.reduce((total, disk) => total + pick(disk), 0);
  const open = disks.filter(({ residentBytes, sizeBytes }) => residentBytes < sizeBytes);
  const isKnown = open.every(({ etaSeconds }) => etaSeconds !== null);
  return {
    sizeBytes: sum(({ sizeBytes }) => sizeBytes),
    residentBytes: sum(({ residentBytes }) => residentBytes),
    rateBytesPerSecond: sum(({ rateBytesPerSecond }) => rateBytesPerSecond),
    etaSeconds: isKnown ? Math.max(0, ...open.map(({ etaSeconds }) => etaSeconds!)) : null,
  };
}

/** `45.2 %`; rounded down, so that 100 means all of it. */
export function formatPercent(part: number, whole: number): string {
  const percent = whole === 0 ? 100 : Math.floor((part / whole) * 1000) / 10;
  return `${percent} %`;
}

/** `120 MiB/s, about 9 s left`, or why there is no such thing. */
export function formatPace({ rateBytesPerSecond, etaSeconds }: Progress): string {
  const rate = rateBytesPerSecond > 0 ? `${formatSize(rateBytesPerSecond)}/s` : "nothing moves at present";
  const left = etaSeconds === null ? "time left unknown" : `about ${formatDuration(etaSeconds * 1000)} left`;
  return `${rate}, ${left}`;
}

/** The status for people: where it stands, then what holds it up and what to do about it. */
export function statusLines(status: MigrationStatus): string[] {
  const { id, phase, source, destination } = status;
  const lines = [
    `${id} ${phase}: ${formatPlace(source)} to ${formatPlace(destination)}`,
    `  ${describePhase(status)}`,
  ];
  const isRunning = phase === "active" || phase === "attached";
  if (isRunning && status.paused) lines.push(`  the sync is paused: dlsm resume ${id} lets it go on`);
  if (isRunning && status.waitingForSource) {
    lines.push(
      "  the source cannot be reached: reads of what is not here yet wait, the rest works; " +
        "check the source host and the network, it reconnects by itself",
    );
  }
  if (status.lastError !== null) {
    lines.push(`  last error: ${status.lastError}`);
    if (phase !== "done" && phase !== "aborted") {
      lines.push(`  when its cause is mended, dlsm resume ${id} goes on from here`);
    }
  }
  return lines;
}

function describePhase(status: MigrationStatus): string {
  const { id, phase } = status;
  switch (phase) {
    case "exported":
      return status.destination.path === ""
        ? `the source is exported; when its destination has all of it: dlsm release ${id}`
        : `the source is exported, the destination not attached yet: dlsm resume ${id} goes on`;
    case "attached":
      return `reads pass through to the source and nothing is kept until the hand-off: dlsm activate ${id}`;
    case "active": {
      const progress = progressOf(status);
      const here = formatPercent(progress.residentBytes, progress.sizeBytes);
      const pace = status.paused ? "paused" : formatPace(progress);
      return `${here} of ${formatSize(progress.sizeBytes)} is here; ${pace}`;
    }
    case "synced":
      if (status.disks.some(({ verified }) => verified === "different")) {
        return "everything is here and durable, but differs from the source, which is kept";
      }
      return "everything is here and durable; the source is no longer needed, its export still stands";
    case "released":
      return `everything is here, the export is gone; what is left is the cut-over: dlsm cutover ${id}`;
    case "done":
      return "finished: the destination is a plain local disk";
    case "aborted":
      return "aborted: the source is as it was";
  }
}

function formatPlace({ host, path }: Place): string {
  const name = path === "" ? "(unknown)" : path;
  return host === null || host === "" ? name : `${host}:${name}`;
}
