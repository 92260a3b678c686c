/**
 * The engine's half of a verification: hashes of blocks that were fetched and not written here, as they are
 * on the local disk. The source's half hashes the same extents of its disk; only hashes are compared.
 */
import { createHash } from "node:crypto";
import type { Claims } from "./claims.ts";
import type { LocalDisk } from "./local-disk.ts";
import type { Geometry } from "./map-layout.ts";
import type { BlockRange } from "./range-index.ts";
import { residency, type ResidencyMap } from "./residency.ts";

/** Extents as [offset, length] in bytes, hashed one after the other. */
export interface HashedPiece {
  readonly extents: [offsetBytes: number, lengthBytes: number][];
  readonly sha256: Uint8Array;
}

/** One piece covers at most this much of the disk. */
export const pieceBytes = 1024 * 1024;

export interface VerifyDependencies {
  readonly map: ResidencyMap;
  readonly claims: Claims;
  readonly disk: LocalDisk;
  readonly geometry: Geometry;
}

/**
 * Hashes up to `maxPieces` pieces of fetched blocks from `from` on (bytes).
 * @returns the pieces, and where to go on (bytes); `next` is undefined when the end is reached
 */
export async function hashFetched(
  deps: VerifyDependencies,
  from: number,
  maxPieces: number,
): Promise<{ pieces: HashedPiece[]; next: number | undefined }> {
  const { map, geometry: { blockBytes } } = deps;
  const windowBlocks = pieceBytes / blockBytes;
  const pieces: HashedPiece[] = [];
  let at = map.find(residency.fetched, Math.floor(from / blockBytes));
  while (at !== -1 && pieces.length < maxPieces) {
    const windowEnd = Math.min(map.blockCount, (Math.floor(at / windowBlocks) + 1) * windowBlocks);
    const piece = await hashWindow(deps, { first: at, count: windowEnd - at });
    if (piece !== undefined) pieces.push(piece);
    at = map.find(residency.fetched, windowEnd);
  }
  return { pieces, next: at === -1 ? undefined : at * blockBytes };
}

/** Undefined if nothing in the window is fetched and left alone. */
async function hashWindow(deps: VerifyDependencies, window: BlockRange): Promise<HashedPiece | undefined> {
  const { disk, geometry: { blockBytes, sizeBytes } } = deps;
  for (;;) {
    const ranges = untouched(deps, window);
    if (ranges.length === 0) return undefined;
    const hash = createHash("sha256");
    const extents: HashedPiece["extents"] = [];
    for (const range of ranges) {
      const offset = range.first * blockBytes;
      const length = Math.min(sizeBytes, offset + range.count * blockBytes) - offset;
      const data = Buffer.allocUnsafe(length);
      await disk.read(offset, data);
      hash.update(data);
      extents.push([offset, length]);
    }
    // What was written while it was read is no longer comparable: look again without it.
    const after = untouched(deps, window);
    if (ranges.every((range) => after.some((other) => covers(other, range)))) {
      return { extents, sha256: new Uint8Array(hash.digest()) };
    }
  }
}

/** Fetched blocks of the window that nobody is writing right now. */
function untouched({ map, claims }: VerifyDependencies, window: BlockRange): BlockRange[] {
  const ranges: BlockRange[] = [];
  for (const run of map.runs(window.first, window.count)) {
    if (run.state !== residency.fetched) continue;
    const end = run.first + run.count;
    for (let at = run.first; at < end;) {
      const claim = claims.lowest(at, end - at);
      const stop = Math.min(end, Math.max(at, claim?.first ?? end));
      if (stop > at) ranges.push({ first: at, count: stop - at });
      at = claim === undefined ? end : claim.first + claim.count;
    }
  }
  return ranges;
}

function covers(outer: BlockRange, inner: BlockRange): boolean {
  return outer.first <= inner.first && outer.first + outer.count >= inner.first + inner.count;
}
