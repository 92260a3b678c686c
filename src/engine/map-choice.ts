/** Which of a volume's two maps counts when its engine starts. Pure. */
import type { Geometry, MapHeader } from "./map-layout.ts";
import { validIndexBits } from "./residency.ts";

/** The map cannot be used: damaged, or of another volume. */
export class MapError extends Error {}

/** The engine was killed in this boot, and its live map is not what it left: missing, or damaged. */
export class LiveMapError extends Error {
  readonly isMissing: boolean;

  constructor(message: string, { isMissing }: { readonly isMissing: boolean }) {
    super(message);
    this.isMissing = isMissing;
  }
}

/** In this boot the local disk failed to make durable what the live map speaks of. */
export class SyncFailedError extends Error {
  constructor() {
    super(
      "the local disk failed to store what was written to it; what the system still shows of that is not safe",
    );
  }
}

export interface MapIdentity extends Geometry {
  readonly volumeId: string;
  readonly bootId: string;
}

/** What a map file holds; its header is undefined if there is no valid one. */
export interface StoredMap {
  readonly header: MapHeader | undefined;
  readonly index: Uint8Array;
}

/**
 * True for the live map: it was written in this boot. Else the durable one counts, and what was acknowledged and
 * not flushed since is forgotten: where the boot is the same that is a loss, and wants `mayLoseUnflushed`
 * (else LiveMapError, SyncFailedError). Throws MapError if the durable map's header is of no use.
 */
export function liveMapCounts(
  durable: StoredMap,
  live: StoredMap,
  identity: MapIdentity,
  mayLoseUnflushed: boolean,
): boolean {
  if (durable.header === undefined) throw new MapError("its header is damaged");
  checkIdentity(durable.header, identity);
  const problem = problemOf(durable as StoredMap & { readonly header: MapHeader }, live, identity);
  if (problem === undefined) {
    checkIdentity(live.header!, identity);
    return true;
  }
  if (problem.isLoss && !mayLoseUnflushed) throw problem.error;
  return false;
}

/** Why the live map does not count. */
function problemOf(
  durable: StoredMap & { readonly header: MapHeader },
  live: StoredMap,
  { volumeId, bootId }: MapIdentity,
): { readonly error: Error; readonly isLoss: boolean } | undefined {
  const { activated, clean, generation } = durable.header;
  const isItsOwn = live.header !== undefined && live.header.generation === generation &&
    live.header.bootId === bootId && live.header.volumeId === volumeId;
  if (!isItsOwn) {
    const isLoss = activated && durable.header.bootId === bootId && !clean;
    const text = "the live map that belongs to it is missing, although the machine has not been restarted";
    return { error: new LiveMapError(text, { isMissing: true }), isLoss };
  }
  if (live.header!.syncFailed) return { error: new SyncFailedError(), isLoss: true };
  // Bits are only ever set, and in the live map first.
  if (durable.index.some((bits, page) => bits !== 0 && (live.index[page] & validIndexBits) === 0)) {
    return {
      error: new LiveMapError("the live map is damaged: it lacks what the durable one has", {
        isMissing: false,
      }),
      isLoss: true,
    };
  }
  return undefined;
}

function checkIdentity(header: MapHeader, expected: MapIdentity): void {
  if (header.volumeId !== expected.volumeId) throw new MapError(`it belongs to ${header.volumeId}`);
  if (header.sizeBytes !== expected.sizeBytes || header.blockBytes !== expected.blockBytes) {
    throw new MapError(`it is for a disk of ${header.sizeBytes} bytes in blocks of ${header.blockBytes}`);
  }
}
