/** Setting one volume up at the destination, and taking it away again. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { engineFiles, type EngineStatus, readStoredStatus, type SourceExport } from "../engine/mod.ts";
import { removeFileDurably } from "../lib/atomic-file.ts";
import { PreconditionError } from "../lib/errors.ts";
import type { DestinationRecord } from "./destination-journal.ts";
import type { DestinationRecords } from "./destination-records.ts";
import { knownDisk } from "./disk-identity.ts";
import {
  askEngine,
  endEngine,
  endUnlessActivated,
  engineStatus,
  startEngine,
  untilConnected,
} from "./engine-process.ts";
import type { RoleFolders } from "./layout.ts";
import { inspectDestination, makeLocalFile, unmakeLocalFile } from "./local-file.ts";

/** Makes the local disk and the map, starts the engine; the record is "attached" afterwards. */
export async function setUpVolume(
  records: DestinationRecords,
  record: DestinationRecord,
  source: SourceExport,
): Promise<void> {
  const { plan } = record;
  const folders = records.folders(plan.id);
  const { failback } = plan;
  if (failback !== null && records.read(plan.id).seededBytes !== plan.sizeBytes) throw notSeeded(plan.id);
  const file = await inspectDestination(record.path, plan.sizeBytes, plan.force);
  const attaching: DestinationRecord = { ...record, origin: file.origin, state: "attaching" };
  records.write(attaching);
  makeLocalFile(file, plan.sizeBytes);
  const made: DestinationRecord = { ...attaching, ...knownDisk(file.path), runFolder: records.runFolder };
  records.write(made);
  records.writeConfig(plan.id, {
    volumeId: plan.id,
    path: file.path,
    sizeBytes: plan.sizeBytes,
    blockBytes: plan.blockBytes,
    activation: plan.activation,
    isFresh: file.origin !== "existing",
    isSeeded: failback !== null,
    bytesPerSecond: plan.bytesPerSecond === null ? null : Math.max(1, plan.bytesPerSecond / plan.diskCount),
    isPaused: false,
    sourceTimeoutMs: plan.sourceTimeoutMs,
    source,
  });
  await startEngine(folders, { isNew: failback === null });
  await untilConnected(folders, source);
  records.write({ ...made, state: "attached" });
}

/** As it was planned: no engine, no map, no file that was made here. */
export async function undoAttach(records: DestinationRecords, record: DestinationRecord): Promise<void> {
  if (record.state === "planned") return;
  const folders = records.folders(record.plan.id);
  await endEngine(folders);
  unmakeLocalFile(record.path, record.identity, record.origin);
  for (const name of [engineFiles.map, engineFiles.config]) removeFileDurably(join(folders.state, name));
  rmSync(join(folders.run, engineFiles.liveMap), { force: true });
  records.write({ ...record, state: "planned", seededBytes: 0 });
}

/**
 * Throws PreconditionError if the export is not the one that was planned. The destination goes where its own plan
 * says, with its own ssh keys, and not where the source's host sends it. A ticket carries its own address.
 */
export function requirePlanned({ plan }: DestinationRecord, source: SourceExport): void {
  const { network: { portal, tunnel }, options, failback, sizeBytes } = plan;
  // What a disk goes back from was only large enough for it.
  if (source.sizeBytes < sizeBytes || (failback === null && source.sizeBytes !== sizeBytes)) {
    throw new PreconditionError(`the source has ${source.sizeBytes} bytes now, not ${sizeBytes} as before`);
  }
  const isThere = source.address === portal.address && (portal.port === 0 || source.port === portal.port);
  if (options.byTicket || (isThere && source.tunnel === tunnel)) return;
  throw new PreconditionError(
    `the source ${plan.source.host} is not where it was planned: it names ${placeOf(source)}, planned was ${
      placeOf({ ...portal, tunnel })
    }`,
    {
      hint: `see what has changed on ${plan.source.host}; dlsm abort ${
        plan.id.split("-")[0]
      }, then migrate anew`,
    },
  );
}

function placeOf({ address, port, tunnel }: Pick<SourceExport, "address" | "port" | "tunnel">): string {
  return `${address} port ${port === 0 ? "any" : port}${tunnel === null ? "" : ` through ssh ${tunnel}`}`;
}

function notSeeded(id: string): PreconditionError {
  return new PreconditionError(`what ${id} has here already is not known yet`, {
    hint: `go on with dlsm resume ${id.split("-")[0]}`,
  });
}

/** What was released is gone for good: an engine that is started again does not go on looking for it. */
export async function leaveSource(folders: RoleFolders): Promise<void> {
  const status = await engineStatus(folders);
  if (status?.state === "synced") await askEngine(folders, "detachSource");
}

/** All of it goes, whatever it was; it was decided before (destination-abort.ts). */
export async function takeAway(records: DestinationRecords, id: string): Promise<void> {
  const record = records.readable(id);
  // What was only planned has touched nothing, so that a file at the path is somebody else's.
  const isTouched = record !== undefined && record.state !== "planned";
  await endEngine(records.folders(id));
  if (isTouched) unmakeLocalFile(record.path, record.identity, record.origin);
  records.remove(id);
}

/**
 * Ends the engine unless the hand-off has happened: then false, and an engine that runs goes on. After true it
 * cannot happen until an engine is started, as only happens under the host's lock.
 */
export async function endBeforeHandOff(records: DestinationRecords, id: string): Promise<boolean> {
  return await endUnlessActivated(records.folders(id)) && !storedActivation(records, id);
}

/** Whether the hand-off has happened, as far as can be told. */
export async function isActivated(records: DestinationRecords, id: string): Promise<boolean> {
  const status = await engineStatus(records.folders(id));
  return status === undefined ? storedActivation(records, id) : isHandedOver(status);
}

/** The hand-off has happened, or is being written down at this moment. */
export function isHandedOver({ state, isActivating }: EngineStatus): boolean {
  return state !== "attached" || isActivating;
}

/** The same, as far as the maps on disk tell: for when no engine runs. */
export function storedActivation(records: DestinationRecords, id: string): boolean {
  const record = records.readable(id);
  if (record?.state === "planned") return false;
  const stored = readStoredStatus(records.folders(id));
  // A map that cannot be read, or is gone, may stand for data that is nowhere else.
  return stored?.activated ?? record?.state !== "attaching";
}
