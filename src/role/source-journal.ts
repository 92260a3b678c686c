/** What the source role remembers of an export; one file each, mode 0600, because it holds the secrets. */
import * as v from "valibot";
import { sourceExportSchema } from "../engine/mod.ts";
import { Journal } from "../lib/journal.ts";
import { requireOwnFolder } from "./layout.ts";
import { endpointSchema, fenceKinds, idSchema } from "./messages.ts";

/** The disk as it was when it was fenced, against which later changes show. */
const baselineSchema = v.object({
  /** Device counters start again at each boot. */
  bootId: v.string(),
  sizeBytes: v.number(),
  /** The disk itself if it is a file, or the file behind a loop device. */
  file: v.nullable(v.object({ path: v.string(), sizeBytes: v.number(), mtimeNs: v.string() })),
  /** 512-byte sectors written and discarded since the device was made; null for a file. */
  changedSectors: v.nullable(v.number()),
});
export type Baseline = v.InferOutput<typeof baselineSchema>;

const fenceSchema = v.object({
  /** What the disk had before, to be given back; null: not there to be changed. */
  original: v.object({
    /** A file's permission bits. */
    mode: v.nullable(v.number()),
    isImmutable: v.nullable(v.boolean()),
    /** A device's flag. */
    isReadOnly: v.nullable(v.boolean()),
  }),
  kinds: v.array(v.picklist(fenceKinds)),
  notes: v.array(v.string()),
  /** Null until the fence stands: it is being made, or was given up half-way. */
  baseline: v.nullable(baselineSchema),
});
export type FenceRecord = v.InferOutput<typeof fenceSchema>;

const sourceRecordSchema = v.object({
  id: idSchema,
  createdAt: v.string(),
  path: v.string(),
  /** Device and inode of the file, or the device number: one disk, whatever its path. */
  identity: v.string(),
  /** Good in every boot, see disk-identity.ts; the boot in which `identity` and `runFolder` count. */
  stableId: v.string(),
  bootId: v.string(),
  /** Where its sockets are. */
  runFolder: v.string(),
  isFile: v.boolean(),
  /** Read with O_DIRECT. */
  direct: v.boolean(),
  /** Where the portal shall listen; port 0: any. */
  portal: v.object({ address: v.string(), port: v.number() }),
  /** The one address that may log in. */
  allow: v.string(),
  /** The ssh destination through which the destination reaches the portal. */
  tunnel: v.optional(v.nullable(v.string()), null),
  destination: v.nullable(endpointSchema),
  /** exporting: being set up, nobody was told of it yet. exported: in use. releasing: being taken away. */
  state: v.picklist(["exporting", "exported", "releasing"]),
  /** What the destination needs to log in. */
  export: sourceExportSchema,
  /** Null: the disk is as its owner left it. Version 1 of the record had no fence. */
  fence: v.optional(v.nullable(fenceSchema), null),
});
export type SourceRecord = v.InferOutput<typeof sourceRecordSchema>;

/** `folder` is named as the disk's id. */
export function sourceJournal(folder: string): Journal<SourceRecord> {
  return new Journal(`${folder}/journal`, "source", 2, (value) => {
    const record = v.parse(sourceRecordSchema, value);
    requireOwnFolder(record.id, folder);
    return record;
  });
}
