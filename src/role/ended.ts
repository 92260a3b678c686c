/**
 * Migrations that came to their end on this host as destination: what they last were, so that somebody who
 * comes back later is told. A convenience: it is kept for the last hundred disks, and not where it cannot be.
 */
import { join } from "node:path";
import * as v from "valibot";
import { Journal } from "../lib/journal.ts";
import type { RoleFolders } from "./layout.ts";
import { type DestinationEntry, type EndedDisk, idSchema, isAskedFor } from "./messages.ts";

const maxEnded = 100;
/** In the state folder. */
export const endedName = "ended";

const bytes = v.pipe(v.number(), v.finite(), v.minValue(0));
const words = v.nullable(v.string());
const place = v.looseObject({ host: v.string(), path: v.string() });
const engineSchema = v.looseObject({
  state: v.string(),
  residentBytes: bytes,
  writtenBytes: bytes,
  fetchedBytes: v.object({ demand: bytes, readahead: bytes, sync: bytes }),
  refetchedBytes: bytes,
  holeBytes: bytes,
  overwrittenBytes: bytes,
  lastError: words,
});

/**
 * What a status is made of. It is only shown; a record that looks otherwise, of another version of dlsm perhaps,
 * is left out.
 */
const endedSchema = v.looseObject({
  endedAt: v.string(),
  entry: v.looseObject({
    id: idSchema,
    isReadable: v.boolean(),
    createdAt: v.string(),
    state: v.string(),
    goesBackAs: v.nullable(idSchema),
    source: place,
    destination: place,
    options: v.looseObject({ handoff: v.string() }),
    sizeBytes: bytes,
    blockBytes: bytes,
    nbdSocket: v.string(),
    engine: v.nullable(engineSchema),
    verified: v.optional(v.nullable(v.picklist(["same", "different"]))),
    verifiedBytes: v.optional(bytes),
    stored: v.nullable(v.looseObject({ residentBytes: bytes, writtenBytes: bytes })),
    driverPid: v.nullable(v.number()),
    driverNote: words,
    problem: words,
    remedy: words,
  }),
});

export function noteEnded(folders: RoleFolders, entry: DestinationEntry): void {
  const others = readEnded(folders).filter((each) => each.entry.id !== entry.id);
  const ended: EndedDisk = { endedAt: new Date().toISOString(), entry };
  try {
    journal(folders).write([...others, ended].slice(-maxEnded));
  } catch {
    // No space left, perhaps.
  }
}

/** Those of one migration; of all, the oldest first, without `only`. */
export function readEnded(folders: RoleFolders, only?: string): EndedDisk[] {
  try {
    return (journal(folders).read() ?? []).filter(({ entry }) => isAskedFor(entry.id, only));
  } catch {
    return [];
  }
}

function journal({ state }: RoleFolders): Journal<EndedDisk[]> {
  return new Journal(
    join(state, endedName),
    "ended",
    1,
    (value) =>
      v.parse(v.array(v.unknown()), value).filter((each): each is EndedDisk => v.is(endedSchema, each)),
  );
}
