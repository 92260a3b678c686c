/**
 * Whether a migration is given up or handed over: one of the two, for all of its disks.
 *
 * It is decided under the host's lock, as `destination.activate` is. Only a first write comes without the lock;
 * so each engine is ended first, in one step with looking whether the hand-off has happened, and only then is
 * "aborting" written down. From there on nothing brings any of the disks up again, and nothing was taken away
 * before.
 */
import { PreconditionError } from "../lib/errors.ts";
import { refuseLoss } from "./destination-failback.ts";
import type { DestinationRecords } from "./destination-records.ts";
import { endBeforeHandOff, isActivated, storedActivation } from "./destination-setup.ts";
import { EngineHungError, engineStatus, startEngine } from "./engine-process.ts";
import { migrationOf } from "./messages.ts";

/** Throws PreconditionError, and nothing is changed, if one of the disks must not be given up. */
export async function decideAbort(
  records: DestinationRecords,
  id: string,
  isForced: boolean,
): Promise<void> {
  const open = records.siblings(id).filter((each) => !isAborting(records, each));
  for (const each of open) await requireAbortable(records, each, isForced);
  if (!isForced) await endAll(records, open);
  for (const each of open) {
    const record = records.readable(each);
    // What was only planned has touched nothing, so that a file at the path is somebody else's.
    if (record === undefined || record.state === "planned") continue;
    records.write({ ...record, state: "aborting" });
  }
}

/** Throws PreconditionError if the migration was given up; what is left of it must not come up any more. */
export function requireNotAborting(records: DestinationRecords, id: string): void {
  if (!records.siblings(id).some((each) => isAborting(records, each))) return;
  throw new PreconditionError(`the abort of ${id} was cut short`, {
    hint: `finish it with dlsm abort ${migrationOf(id)}`,
  });
}

function isAborting(records: DestinationRecords, id: string): boolean {
  return records.readable(id)?.state === "aborting";
}

async function requireAbortable(
  records: DestinationRecords,
  id: string,
  isForced: boolean,
): Promise<void> {
  const record = records.checked(id);
  const isActive = await wasActivated(records, id, isForced);
  if (record !== undefined) refuseLoss(record, isActive);
  if (isActive && !isForced) throw handedOver(id);
}

async function wasActivated(records: DestinationRecords, id: string, isForced: boolean): Promise<boolean> {
  try {
    return await isActivated(records, id);
  } catch (error) {
    if (!isForced || !(error instanceof EngineHungError)) throw error;
    return storedActivation(records, id);
  }
}

/** All or none: those that were ended come back if another one is in use. */
async function endAll(records: DestinationRecords, ids: readonly string[]): Promise<void> {
  const ended: string[] = [];
  try {
    for (const id of ids) {
      const wasRunning = await engineStatus(records.folders(id)) !== undefined;
      if (!await endBeforeHandOff(records, id)) throw handedOver(id);
      if (wasRunning) ended.push(id);
    }
  } catch (error) {
    for (const id of ended) await bringBack(records, id);
    throw error;
  }
}

async function bringBack(records: DestinationRecords, id: string): Promise<void> {
  try {
    await startEngine(records.folders(id), {});
  } catch {
    // Whoever drives, or resumes, starts it again and tells why it does not.
  }
}

function handedOver(id: string): PreconditionError {
  return new PreconditionError(`the hand-off of ${id} has happened: what was written since is only here`, {
    hint: `finish it with dlsm resume ${
      migrationOf(id)
    }; dlsm abort --force throws away what was written here`,
  });
}
