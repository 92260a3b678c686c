/** Verification: both ends hash the blocks that were fetched and not written since; only hashes are compared. */
import { DifferenceError } from "../lib/errors.ts";
import type { Replies } from "../role/mod.ts";
import { type Context } from "./context.ts";

export interface Verified {
  readonly comparedBytes: number;
  /** Pieces that differ, as the extents they are made of. */
  readonly different: readonly (readonly [offsetBytes: number, lengthBytes: number])[];
}

/** Enough to tell where a difference is; a disk that differs everywhere does not fill memory. */
const maxDifferences = 100;

/** Compares one disk, by its id. */
export async function verify({ source, destination }: Context, id: string): Promise<Verified> {
  // Only what is compared when all is here says something of the whole disk.
  const [entry] = await destination.ask("destination.list", { id });
  const isFinal = entry?.engine?.state === "synced";
  let comparedBytes = 0;
  const different: [number, number][] = [];
  // The destination hashes the next pieces while the source hashes these.
  const ask = (from: number) => destination.ask("destination.hashFetched", { id, from });
  for (let asked: Promise<Replies["destination.hashFetched"]> | undefined = ask(0); asked !== undefined;) {
    const { pieces, next }: Replies["destination.hashFetched"] = await asked;
    asked = next === null ? undefined : ask(next);
    asked?.catch(() => {}); // Told where it is awaited, if this loop gets there.
    if (pieces.length === 0) continue;
    const hashes = await source.ask("source.hash", { id, pieces: pieces.map(({ extents }) => extents) });
    pieces.forEach(({ extents, sha256 }, at) => {
      for (const [, length] of extents) comparedBytes += length;
      if (Buffer.compare(sha256, hashes[at]) !== 0 && different.length < maxDifferences) {
        different.push(...extents);
      }
    });
  }
  const verified = different.length > 0 ? "different" : "same";
  if (isFinal || verified === "different") {
    await destination.ask("destination.setVerified", { id, verified, verifiedBytes: comparedBytes });
  }
  return { comparedBytes, different };
}

/** Throws DifferenceError if anything differs. */
export function requireSame(id: string, { different }: Verified): void {
  if (different.length === 0) return;
  const [[offset, length]] = different;
  throw new DifferenceError(
    `source and destination of ${id} differ in ${different.length} places, the first in ${length} bytes at ${offset}`,
    {
      hint:
        "the source's export is kept; find out what wrote the source after the hand-off, or the destination " +
        "beside dlsm",
    },
  );
}
