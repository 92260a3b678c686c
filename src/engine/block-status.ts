/** What NBD's BLOCK_STATUS is answered with. */
import { allocationFlags, type Extent } from "../nbd-server/device.ts";
import { blocksOf } from "./blocks.ts";
import type { LocalDisk } from "./local-disk.ts";
import type { Geometry } from "./map-layout.ts";
import { residency, type ResidencyMap } from "./residency.ts";

export interface BlockStatusDependencies {
  readonly geometry: Geometry;
  readonly map: ResidencyMap;
  readonly disk: LocalDisk;
}

export const metaContexts = ["base:allocation", "dlsm:residency"] as const;

/**
 * Extents of [offset, offset + length), at most `maxExtents`. "dlsm:residency": 0 absent, 1 fetched, 2 written.
 * "base:allocation": what is absent counts as data; of what is resident the local disk knows the holes.
 */
export function blockStatus(
  { geometry: { blockBytes }, map, disk }: BlockStatusDependencies,
  context: string,
  offset: number,
  length: number,
  maxExtents: number,
): Extent[] {
  const extents: Extent[] = [];
  const end = offset + length;
  const isResidency = context === "dlsm:residency";
  for (let at = offset; at < end && extents.length <= maxExtents;) {
    const { first } = blocksOf(blockBytes, at, 1);
    const state = map.stateOf(first);
    const count = map.runLength(
      first,
      Math.ceil((end - first * blockBytes) / blockBytes),
    );
    let stop = Math.min(end, (first + count) * blockBytes);
    let flags: number = state;
    if (!isResidency) {
      flags = 0;
      if (state !== residency.absent) {
        const piece = disk.extentAt(at, stop);
        stop = piece.end;
        flags = piece.isHole ? allocationFlags.hole | allocationFlags.zero : 0;
      }
    }
    const last = extents.at(-1);
    if (last?.flags === flags) last.lengthBytes += stop - at;
    else extents.push({ lengthBytes: stop - at, flags });
    at = stop;
  }
  return extents.slice(0, maxExtents);
}
