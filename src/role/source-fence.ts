/** The fence of an exported disk: each change is in the source's journal before it is made. */
import { statSync } from "node:fs";
import { PreconditionError } from "../lib/errors.ts";
import type { Journal } from "../lib/journal.ts";
import { bootId } from "../lib/process-id.ts";
import { place } from "./disk-facts.ts";
import { isOtherDisk } from "./disk-identity.ts";
import { describeUsers, diskUsers } from "./disk-users.ts";
import { giveBack, liftImmutable, originalOf, protect } from "./fence.ts";
import { takeBaseline } from "./fence-watch.ts";
import { type Fenced, migrationOf } from "./messages.ts";
import type { FenceRecord, SourceRecord } from "./source-journal.ts";

/**
 * Fences the record's disk. Refused while somebody but `exceptPids` can write it, unless `force`; a refusal
 * leaves the disk as it was before the call. A fence that stands keeps its baseline.
 */
export async function fenceDisk(
  journal: Journal<SourceRecord>,
  record: SourceRecord,
  force: boolean,
  exceptPids: readonly number[],
): Promise<Fenced> {
  if (stateOf(record) !== "there") {
    throw new PreconditionError(`${place(record.path)} is no longer the disk that was exported`, {
      hint: "bring the disk back to this path",
    });
  }
  const standing = record.fence?.baseline ?? null;
  const original = record.fence?.original ?? await originalOf(record.path);
  if (standing === null) write(journal, record, { original, kinds: [], notes: [], baseline: null });
  const { kinds, notes } = await protect(record.path, original);
  const users = diskUsers(record.path, exceptPids);
  if (users.length > 0 && !force) {
    if (standing === null) {
      await giveBack(record.path, original);
      write(journal, record, null);
    }
    throw new PreconditionError(
      `the source ${place(record.path)} can still be written by ${describeUsers(users)}`,
      {
        hint: `stop that, then dlsm activate ${
          record.id.split("-")[0]
        }; --force hands over all the same and risks what is written there`,
      },
    );
  }
  const baseline = standing ?? takeBaseline(record.path);
  write(journal, record, { original, kinds: [...kinds], notes: [...notes], baseline });
  return { kinds, notes, users, stood: standing !== null };
}

/**
 * Gives the disk back as it was. What cannot be, because the disk is gone or another one is at its path, is an
 * error, or (`force`) is said in the note. Throws FailedError, and keeps the record, if it fails.
 */
export async function unfenceDisk(
  journal: Journal<SourceRecord>,
  record: SourceRecord,
  force: boolean,
): Promise<{ readonly wasFenced: boolean; readonly note: string | null }> {
  if (record.fence === null) return { wasFenced: false, note: null };
  const note = isOfThisBoot(record) ? lostDisk(record, record.fence) : null;
  if (note !== null && !force) {
    throw new PreconditionError(note, {
      hint: `bring the disk back to this path, or go on without with --force (dlsm release ${
        migrationOf(record.id)
      })`,
    });
  }
  if (note === null && isOfThisBoot(record)) await giveBack(record.path, record.fence.original);
  write(journal, record, null);
  return { wasFenced: true, note };
}

/**
 * Gives the disk back as it was, but keeps its baseline, so that changes still show; `fenceDisk` makes it
 * read-only again. Throws PreconditionError if the fence does not stand.
 */
export async function liftFence(journal: Journal<SourceRecord>, record: SourceRecord): Promise<null> {
  if ((record.fence?.baseline ?? null) === null || stateOf(record) !== "there") {
    throw new PreconditionError(`${place(record.path)} is not fenced, or not the disk that was`, {
      hint: `see dlsm status ${record.id.split("-")[0]}`,
    });
  }
  write(journal, record, { ...record.fence!, kinds: [] });
  await giveBack(record.path, record.fence!.original);
  return null;
}

/**
 * Does `work`, which starts tgtd on the record's disk, with the fence as far up as that allows; afterwards it
 * stands again, also after a reboot. One that was never finished, or told to anybody, is taken away before.
 */
export async function behindFence<T>(
  journal: Journal<SourceRecord>,
  record: SourceRecord,
  work: (record: SourceRecord) => Promise<T>,
): Promise<T> {
  if (record.fence === null) return await work(record);
  const { original, baseline } = record.fence;
  if (baseline === null) {
    if (isOfThisBoot(record)) await giveBack(record.path, original);
    write(journal, record, null);
    return await work({ ...record, fence: null });
  }
  await liftImmutable(record.path, original);
  await protect(record.path, original, false);
  try {
    return await work(record);
  } finally {
    await keepFence(journal);
  }
}

/** Makes the fence of the journal's record stand again, where something took it away. */
export async function keepFence(journal: Journal<SourceRecord>): Promise<void> {
  const record = journal.read();
  if (record?.fence?.baseline === null || record?.fence?.baseline === undefined) return;
  if (stateOf(record) !== "there") return;
  const { kinds, notes } = await protect(record.path, record.fence.original);
  if (kinds.join() === record.fence.kinds.join()) return;
  write(journal, record, { ...record.fence, kinds: [...kinds], notes: [...notes] });
}

function write(journal: Journal<SourceRecord>, record: SourceRecord, fence: FenceRecord | null): void {
  journal.write({ ...record, fence });
}

/** A device's flag has gone with the boot in which it was set; a file's are on disk. */
function isOfThisBoot(record: SourceRecord): boolean {
  return record.isFile || record.bootId === bootId();
}

function stateOf(record: SourceRecord): "there" | "gone" | "other" {
  if (statSync(record.path, { throwIfNoEntry: false }) === undefined) return "gone";
  return isOtherDisk(record, record.path) ? "other" : "there";
}

/** Why the disk cannot be given back, and what is left to be done by hand; null if it is in its place. */
function lostDisk(record: SourceRecord, { original }: FenceRecord): string | null {
  const state = stateOf(record);
  if (state === "there") return null;
  const steps = [
    ...(original.isImmutable === false ? ["chattr -i"] : []),
    ...(original.mode === null ? [] : [`chmod ${original.mode.toString(8).padStart(4, "0")}`]),
    ...(original.isReadOnly === false ? ["blockdev --setrw"] : []),
  ];
  const what = state === "gone" ? "is gone" : "is another disk now";
  const remedy = steps.length > 0 ? ` (it takes, wherever that disk is: ${steps.join(", ")})` : "";
  return `${place(record.path)} ${what}: the one that was exported was not made writable again${remedy}`;
}
