/**
 * The destination role's part in a disk's way back, at both of its ends: the volume that ends (freeze, written,
 * then retire, or unfreeze and thaw), and the one that begins (seed). The whole: migration/failback.ts.
 *
 * A frozen volume's map does not change. What it says is only told while the record is "frozen"; "thawing" is
 * written down before the other end is taken away, so that nobody can build that anew from what was told.
 */
import { isStoredWhole, readWritten, seedMap } from "../engine/mod.ts";
import { FailedError, PreconditionError } from "../lib/errors.ts";
import { notRunning } from "./destination-entry.ts";
import type { DestinationRecord } from "./destination-journal.ts";
import type { DestinationRecords } from "./destination-records.ts";
import { isActivated, undoAttach } from "./destination-setup.ts";
import { knownDisk } from "./disk-identity.ts";
import { engineStatus, startEngine, stopEngine } from "./engine-process.ts";
import { makeRunFolder } from "./layout.ts";
import { checkSameFile, displaced, isInPlace } from "./local-file.ts";
import { maxExtents, migrationOf, type Replies, type Request } from "./messages.ts";

/** Ends the volume, all of it durable. Can be repeated, with the same `as`. */
export async function freezeVolume(
  records: DestinationRecords,
  { id, as, force }: Request<"destination.freeze">,
): Promise<null> {
  const record = records.read(id);
  if (record.state !== "frozen") {
    await requireFreezable(records, record, force);
    records.write({ ...record, state: "frozen", goesBackAs: as });
  } else if (record.goesBackAs !== as) {
    throw new PreconditionError(`${id} goes back as ${record.goesBackAs} already`);
  }
  await stopWhole(records, record);
  return null;
}

async function requireFreezable(
  records: DestinationRecords,
  { plan: { id, failback }, path, state, ...known }: DestinationRecord,
  isForced: boolean,
): Promise<void> {
  if (state !== "attached" || !await isActivated(records, id)) {
    throw new PreconditionError(`${id} cannot go back: it is ${state}, not in use here`, {
      hint: `see dlsm status ${migrationOf(id)}`,
    });
  }
  if (failback?.isWhole === false) {
    throw new PreconditionError(`${id} cannot go back: where it came from never had all of its data`);
  }
  if (!isInPlace(path, known)) throw displaced(path);
  const status = await engineStatus(records.folders(id));
  if (status === undefined) throw notRunning(id);
  if (status.clients === 0 || isForced) return;
  throw new PreconditionError(`${id} is still used over ${status.clients} NBD connection(s)`, {
    hint: "stop who uses the volume, then go back; --force disconnects them",
  });
}

/** If the engine was killed, another one takes its maps over, and ends in good order. */
async function stopWhole(records: DestinationRecords, record: DestinationRecord): Promise<void> {
  const { plan: { id, sizeBytes }, path } = record;
  const folders = records.folders(id);
  makeRunFolder(folders);
  await stopEngine(folders);
  if (isStoredWhole(folders)) return;
  checkSameFile(path, record, sizeBytes, false);
  await startEngine(folders, {});
  records.write({ ...records.read(id), ...knownDisk(path), runFolder: records.runFolder });
  await stopEngine(folders);
  if (isStoredWhole(folders)) return;
  throw new FailedError(`the engine of ${id} does not end in good order`, {
    hint: `see its log in ${folders.state}; dlsm resume ${migrationOf(id)} stays here`,
  });
}

export async function writtenOf(
  records: DestinationRecords,
  { id, as, from }: Request<"destination.written">,
): Promise<Replies["destination.written"]> {
  await requireFrozen(records, id, as);
  const { extents, toBytes } = readWritten(records.folders(id), from, maxExtents);
  return { extents: extents.map(([offset, length]) => [offset, length]), to: toBytes };
}

async function requireFrozen(
  records: DestinationRecords,
  id: string,
  as: string,
  states: readonly string[] = ["frozen"],
): Promise<void> {
  const { state, goesBackAs } = records.read(id);
  const isIt = states.includes(state) && goesBackAs === as;
  if (isIt && await engineStatus(records.folders(id)) === undefined) return;
  throw new PreconditionError(`${id} does not go back as ${as} (any more): it is ${state}`, {
    hint: `see dlsm status ${migrationOf(id)}`,
  });
}

export function beginThaw(records: DestinationRecords, id: string): Promise<null> {
  const record = records.read(id);
  if (record.state === "frozen") records.write({ ...record, state: "thawing" });
  return Promise.resolve(null);
}

/** The engine is started by whoever brings the migration up again. */
export function endThaw(records: DestinationRecords, id: string): Promise<null> {
  const record = records.read(id);
  if (record.state === "frozen") {
    throw new PreconditionError(`${id} goes back as ${record.goesBackAs}`, {
      hint: `stay here with dlsm resume ${migrationOf(id)}`,
    });
  }
  if (record.state === "thawing") records.write({ ...record, state: "attached", goesBackAs: null });
  return Promise.resolve(null);
}

/** The record goes, the disk stays. Nothing happens if it is gone already. */
export async function retireVolume(
  records: DestinationRecords,
  { id, as }: Request<"destination.retire">,
): Promise<null> {
  if (!records.ids().includes(id)) return null;
  await requireFrozen(records, id, as, ["frozen", "thawing"]);
  records.remove(id);
  return null;
}

/** Pieces come in order; one that is here already can be repeated. */
export async function seedVolume(
  records: DestinationRecords,
  { id, from, to, extents }: Request<"destination.seed">,
): Promise<null> {
  const found = records.read(id);
  const { plan } = found;
  const isOpen = plan.failback !== null && (found.state === "planned" || found.state === "attaching");
  if (!isOpen) throw new PreconditionError(`${id} is no disk that is being set up to go back`);
  await undoAttach(records, found);
  const record = records.read(id);
  if (from > record.seededBytes || to > plan.sizeBytes) {
    throw new PreconditionError(
      `${id}: a piece of its map from ${from} on, where ${record.seededBytes} is next`,
    );
  }
  const folders = records.folders(id);
  makeRunFolder(folders);
  const volume = { volumeId: id, sizeBytes: plan.sizeBytes, blockBytes: plan.blockBytes };
  await seedMap(folders, volume, { fromBytes: from, toBytes: to, extents });
  records.write({ ...record, seededBytes: Math.max(record.seededBytes, to) });
  return null;
}

/** What is only here must not be thrown away while it goes back; nor when neither of the two disks is whole. */
export function refuseLoss(
  { plan: { id, failback }, state, goesBackAs }: DestinationRecord,
  isActive: boolean,
): void {
  if (failback?.isWhole === false && isActive) {
    throw new PreconditionError(`${id} cannot be aborted: what it has is on neither of its two disks alone`, {
      hint: `finish it with dlsm resume ${migrationOf(id)}`,
    });
  }
  if (state !== "frozen" && state !== "thawing") return;
  const migration = migrationOf(id);
  throw new PreconditionError(`${migration} is going back as ${migrationOf(goesBackAs!)}`, {
    hint: `dlsm failback ${migration} goes on with that, dlsm resume ${migration} stays here`,
  });
}
