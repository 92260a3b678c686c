/** What a finished migration moved, and what it did not have to. Pure. */
import { formatDuration, formatSize } from "../lib/units.ts";
import type { MigrationStatus, Summary } from "../report/mod.ts";

/** @param nowMs the time, as Date.now() gives it */
export function summaryOf(status: MigrationStatus, nowMs: number): Summary {
  const lines = [`${status.id} done: ${status.source.path} is now ${status.destination.path}`];
  for (const disk of status.disks) {
    const { demand, readahead, sync } = disk.fetchedBytes;
    lines.push(
      `  moved        ${formatSize(demand + readahead + sync)} of ${formatSize(disk.sizeBytes)}: ` +
        `${formatSize(demand)} on demand, ${formatSize(readahead)} ahead of demand, ${
          formatSize(sync)
        } by the sync`,
      `  never moved  ${formatSize(disk.holeBytes)} of holes, ${
        formatSize(disk.overwrittenBytes)
      } overwritten here first`,
      `  moved twice  ${formatSize(disk.refetchedBytes)}`,
    );
  }
  // Of two hosts' clocks, or of one that was set meanwhile: then it is not known.
  const differenceMs = nowMs - Date.parse(status.createdAt);
  const tookMs = differenceMs >= 0 ? differenceMs : null;
  const verifiedBytes = verifiedBytesOf(status);
  if (verifiedBytes !== null) {
    lines.push(`  verified     ${formatSize(verifiedBytes)}: both sides have the same hashes`);
  }
  if (tookMs !== null) lines.push(`  took         ${formatDuration(tookMs)}`);
  const tookSeconds = tookMs === null ? null : tookMs / 1000;
  return { json: { ...status, verifiedBytes, tookSeconds }, lines };
}

/** What was compared of all disks, and found to be the same; null if that was not done for each. */
function verifiedBytesOf({ disks }: MigrationStatus): number | null {
  if (!disks.every(({ verified }) => verified === "same")) return null;
  return disks.reduce((sum, { verifiedBytes }) => sum + verifiedBytes, 0);
}
