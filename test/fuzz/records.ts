/** A sound record of each journal, and the journals. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { engineConfigJournal } from "../../src/engine/config.ts";
import { Journal } from "../../src/lib/journal.ts";
import { destinationJournal } from "../../src/role/destination-journal.ts";
import { sourceJournal } from "../../src/role/source-journal.ts";
import { destination as entry } from "../migration/entries.ts";
import { tempFolder } from "../helpers/temp.ts";
import { planOf } from "../role/plan.ts";

export const id = "abcd1234";
const endpoint = { host: "node1", path: "/dev/vg/disk", reach: "root@node1", hostId: "0".repeat(32) };
const known = { identity: "file:8:1:77", stableId: "inode:77", bootId: "boot-1", runFolder: "/run/dlsm" };

export const sourceExport = {
  address: "192.0.2.7",
  port: 13260,
  targetName: `iqn.2026-01.local.dlsm:${id}.0011`,
  serial: `dlsm-${id}`,
  chap: {
    incoming: { user: "in", secret: "a-secret-of-one" },
    outgoing: { user: "out", secret: "a-secret-of-two" },
  },
  sizeBytes: 1 << 20,
  blockBytes: 512,
  holesReadZero: true,
  tunnel: null,
};

const sourceRecord = {
  id,
  createdAt: "2026-01-02T00:00:00.000Z",
  path: "/dev/vg/disk",
  ...known,
  isFile: true,
  direct: false,
  portal: { address: "192.0.2.7", port: 0 },
  allow: "192.0.2.8",
  tunnel: null,
  destination: endpoint,
  state: "exported",
  export: sourceExport,
  fence: {
    original: { mode: 0o644, isImmutable: false, isReadOnly: null },
    kinds: ["mode"],
    notes: ["a note"],
    baseline: { bootId: "boot-1", sizeBytes: 1 << 20, file: null, changedSectors: 3 },
  },
};

const destinationRecord = {
  createdAt: "2026-01-02T00:00:00.000Z",
  plan: planOf("/var/lib/disk"),
  path: "/var/lib/disk",
  ...known,
  origin: "made",
  state: "attached",
  goesBackAs: null,
  seededBytes: 0,
  isSettled: false,
  isHandoffDecided: true,
  verified: null,
  verifiedBytes: 0,
  isReleased: false,
  totalBytesPerSecond: null,
  cutover: "when-unused",
};

const engineConfig = {
  volumeId: id,
  path: "/var/lib/disk",
  sizeBytes: 1 << 20,
  blockBytes: 4096,
  activation: "explicit",
  isFresh: true,
  isSeeded: false,
  bytesPerSecond: null,
  isPaused: false,
  sourceTimeoutMs: 30_000,
  source: sourceExport,
};

/** Of those whose schema is not to be had by itself, a journal of any record. */
function loose(path: string, kind: string): Journal<unknown> {
  return new Journal(path, kind, 1, (value) => v.parse(v.unknown(), value));
}

export interface JournalKind {
  readonly name: string;
  readonly version: number;
  readonly sample: unknown;
  /** Fields that records of the first version lack. */
  readonly later: readonly string[];
  readonly journal: Journal<unknown>;
}

/** A folder named as the records' id, as the roles name theirs. */
function folderFor(kind: string): string {
  const folder = join(tempFolder("fuzz"), kind, id);
  mkdirSync(folder, { recursive: true });
  return folder;
}

export function journalKinds(): JournalKind[] {
  const source = sourceJournal(folderFor("source"));
  const destination = destinationJournal(folderFor("destination"));
  const engine = engineConfigJournal(folderFor("engine"));
  return [
    {
      name: "source",
      version: 2,
      sample: sourceRecord,
      later: ["fence", "tunnel"],
      journal: source as unknown as Journal<unknown>,
    },
    {
      name: "destination",
      version: 2,
      sample: destinationRecord,
      later: ["goesBackAs", "seededBytes", "isSettled", "isHandoffDecided", "totalBytesPerSecond"],
      journal: destination as unknown as Journal<unknown>,
    },
    {
      name: "engine",
      version: 1,
      sample: engineConfig,
      later: ["isSeeded"],
      journal: engine as unknown as Journal<unknown>,
    },
    {
      name: "other",
      version: 1,
      sample: { anything: [1, "two", null] },
      later: [],
      journal: loose(join(folderFor("other"), "journal"), "other"),
    },
  ];
}

export const ended = [{ endedAt: "2026-01-03T00:00:00.000Z", entry: { ...entry, engine: null } }];
