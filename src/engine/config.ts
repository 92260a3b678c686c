/** What an engine is told when it starts; kept in the state folder, mode 0600, because it holds secrets. */
import * as v from "valibot";
import { Journal } from "../lib/journal.ts";
import { isDestination } from "../ssh/mod.ts";

const bytes = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const text = v.pipe(v.string(), v.minLength(1), v.maxLength(4096));
const sshDestination = v.pipe(v.string(), v.check(isDestination));
const credentials = v.object({ user: text, secret: text });

/** Everything that is needed to read the source's export. A secret. */
export const sourceExportSchema = v.object({
  address: text,
  port: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535)),
  targetName: text,
  /** Unit serial number of the LUN: a session that finds another disk behind the target is refused. */
  serial: text,
  /** What the destination proves itself with, and what it asks of the target. */
  chap: v.object({ incoming: credentials, outgoing: credentials }),
  sizeBytes: v.pipe(bytes, v.minValue(512), v.multipleOf(512)),
  /** 512 or 4096: the LUN's logical block. */
  blockBytes: v.picklist([512, 4096]),
  /** What the target calls deallocated is known to read as zeroes. */
  holesReadZero: v.boolean(),
  /** The ssh destination that `address` is reached through, as seen from there; null: it is reached as it is. */
  tunnel: v.optional(v.nullable(sshDestination), null),
});
export type SourceExport = v.InferOutput<typeof sourceExportSchema>;

export const engineConfigSchema = v.object({
  /** Names the migration and disk; at most 64 characters. */
  volumeId: v.pipe(text, v.maxLength(64)),
  /** The local disk. */
  path: text,
  sizeBytes: v.pipe(bytes, v.minValue(512), v.multipleOf(512)),
  /** The tracking unit: a power of two from 4 KiB to 1 MiB. */
  blockBytes: v.pipe(bytes, v.minValue(4096), v.maxValue(1024 * 1024), v.check((n) => (n & (n - 1)) === 0)),
  activation: v.picklist(["explicit", "first-write"]),
  /** The local disk was made for this volume and reads as zeroes. */
  isFresh: v.boolean(),
  /**
   * The map was made before the engine was (a disk that goes back): the source lacks blocks that are good here,
   * so that nobody is served before the hand-off.
   */
  isSeeded: v.optional(v.boolean(), false),
  /** Limit of the background sync; null for none. */
  bytesPerSecond: v.nullable(v.pipe(v.number(), v.minValue(1))),
  /** The background sync is paused by the user. */
  isPaused: v.boolean(),
  /** A read that waits longer for the source fails; null: it waits. */
  sourceTimeoutMs: v.nullable(v.pipe(v.number(), v.minValue(1))),
  source: sourceExportSchema,
});
export type EngineConfig = v.InferOutput<typeof engineConfigSchema>;

export const engineFiles = {
  config: "engine.config",
  map: "residency.map",
  log: "engine.log",
  liveMap: "live.map",
  controlSocket: "control.sock",
  nbdSocket: "nbd.sock",
} as const;

export function engineConfigJournal(stateFolder: string): Journal<EngineConfig> {
  return new Journal(
    `${stateFolder}/${engineFiles.config}`,
    "engine",
    1,
    (value) => v.parse(engineConfigSchema, value),
  );
}
