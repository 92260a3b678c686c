/**
 * Migrations that came to their end on this host as destination: what they last were, so that somebody who
 * comes back later is told. A convenience: it is kept for the last hundred disks, and not where it cannot be.
 */
import { join } from "node:path";
import * as v from "valibot";
import { Journal } from "../lib/journal.ts";
import type { RoleFolders } from "./layout.ts";
import { type DestinationEntry, type EndedDisk, isAskedFor } from "./messages.ts";

const maxEnded = 100;
/** In the state folder. */
export const endedName = "ended";

/** What was written here is shown only; a record that looks otherwise is left out. */
const endedSchema = v.array(
  v.looseObject({ endedAt: v.string(), entry: v.looseObject({ id: v.string(), createdAt: v.string() }) }),
);

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
    (value) => v.parse(endedSchema, value) as unknown as EndedDisk[],
  );
}
