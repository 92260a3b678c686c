/** What the destination role remembers of a migration. */
import * as v from "valibot";
import { Journal } from "../lib/journal.ts";
import { bootId } from "../lib/process-id.ts";
import { requireOwnFolder } from "./layout.ts";
import type { LocalFile } from "./local-file.ts";
import { idSchema, type Plan, planSchema } from "./messages.ts";

const destinationRecordSchema = v.object({
  createdAt: v.string(),
  plan: planSchema,
  /** Absolute, without symbolic links. */
  path: v.string(),
  /** Device and inode; "" until the file is there. */
  identity: v.string(),
  /** Good in every boot, see disk-identity.ts; the boot in which `identity` and `runFolder` count. */
  stableId: v.string(),
  bootId: v.string(),
  /** Where its sockets are. */
  runFolder: v.string(),
  /** What the local disk was: nothing (made here), an empty file, or a disk with content. */
  origin: v.picklist(["made", "empty", "existing"]),
  /**
   * planned: nothing was done yet. attaching: being set up. attached: an engine serves it (or should); how far it is, the engine's map knows.
   * frozen: the engine has ended (or is to), because the disk goes back. thawing: it does not, after all.
   * finishing: all is on the local disk, the engine goes. aborting: all of it goes.
   */
  state: v.picklist(["planned", "attaching", "attached", "frozen", "thawing", "finishing", "aborting"]),
  /** The disk that it goes back as, in the states frozen and thawing. Version 1 of the record had none. */
  goesBackAs: v.optional(v.nullable(idSchema), null),
  /** Of a disk that goes back (its plan says so): how far its map is made, and whether its old migration is gone. */
  seededBytes: v.optional(v.number(), 0),
  isSettled: v.optional(v.boolean(), false),
  isHandoffDecided: v.optional(v.boolean(), false),
  verified: v.nullable(v.picklist(["same", "different"])),
  /** What was compared for it. */
  verifiedBytes: v.optional(v.number(), 0),
  isReleased: v.boolean(),
  /** Limit of the background sync of all disks together, as it is now. */
  totalBytesPerSecond: v.optional(v.nullable(v.number()), null),
  /** The cut-over may happen: not held, or asked for. "force": clients are disconnected. */
  cutover: v.picklist(["hold", "when-unused", "force"]),
});
export type DestinationRecord = v.InferOutput<typeof destinationRecordSchema>;

/** `folder` is named as the disk's id. */
export function destinationJournal(folder: string): Journal<DestinationRecord> {
  return new Journal(`${folder}/journal`, "destination", 2, (value) => {
    const record = v.parse(destinationRecordSchema, value);
    requireOwnFolder(record.plan.id, folder);
    return record;
  });
}

/** The record of a disk for which nothing was done yet. */
export function plannedRecord(
  plan: Plan,
  { path, identity, origin }: LocalFile,
  runFolder: string,
): DestinationRecord {
  return {
    createdAt: new Date().toISOString(),
    plan,
    path,
    identity: identity ?? "",
    stableId: "",
    bootId: bootId(),
    runFolder,
    origin,
    state: "planned",
    verified: null,
    verifiedBytes: 0,
    isReleased: false,
    isHandoffDecided: false,
    goesBackAs: null,
    seededBytes: 0,
    isSettled: false,
    totalBytesPerSecond: plan.bytesPerSecond,
    cutover: plan.options.holdCutover ? "hold" : "when-unused",
  };
}
