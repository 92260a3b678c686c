/** What the source role remembers of an export; one file each, mode 0600, because it holds the secrets. */
import * as v from "valibot";
import { sourceExportSchema } from "../engine/mod.ts";
import { Journal } from "../lib/journal.ts";
import { endpointSchema, idSchema } from "./messages.ts";

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
  destination: v.nullable(endpointSchema),
  /** exporting: being set up, nobody was told of it yet. exported: in use. releasing: being taken away. */
  state: v.picklist(["exporting", "exported", "releasing"]),
  /** What the destination needs to log in. */
  export: sourceExportSchema,
});
export type SourceRecord = v.InferOutput<typeof sourceRecordSchema>;

export function sourceJournal(folder: string): Journal<SourceRecord> {
  return new Journal(`${folder}/journal`, "source", 1, (value) => v.parse(sourceRecordSchema, value));
}
