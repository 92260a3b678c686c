/** What the destination role says of a migration, also of one whose journal cannot be read. Pure. */
import type { EngineStatus } from "../engine/mod.ts";
import { DlsmError, messageOf, PreconditionError } from "../lib/errors.ts";
import type { DestinationRecord } from "./destination-journal.ts";
import type { DriverFile } from "./driver.ts";
import type { DestinationEntry, Endpoint } from "./messages.ts";

export function notRunning(id: string): PreconditionError {
  return new PreconditionError(`the engine of ${id} does not run`, {
    hint: `start it again with dlsm resume ${id}`,
  });
}

/** What is known without the journal. */
export interface Running {
  readonly id: string;
  readonly host: string;
  readonly hostId: string | null;
  readonly nbdSocket: string;
  readonly engine: EngineStatus | null;
  /** Why it does not answer, although it runs. */
  readonly hung: DlsmError | null;
  readonly stored: DestinationEntry["stored"];
  readonly isActivated: boolean;
  readonly driver: DriverFile | undefined;
}

export function entryOf(
  record: DestinationRecord,
  { host, hostId, driver, hung, ...running }: Running,
): DestinationEntry {
  const { plan, state } = record;
  return {
    ...running,
    driverPid: driver?.pid ?? null,
    driverNote: driver?.note ?? null,
    isReadable: true,
    createdAt: record.createdAt,
    state,
    goesBackAs: record.goesBackAs,
    failback: plan.failback === null
      ? null
      : { ...plan.failback, seededBytes: record.seededBytes, isSettled: record.isSettled },
    source: plan.source,
    destination: { host, path: record.path, reach: plan.destinationReach, hostId },
    options: plan.options,
    diskCount: plan.diskCount,
    network: plan.network,
    totalBytesPerSecond: record.totalBytesPerSecond,
    isHandoffDecided: record.isHandoffDecided,
    sizeBytes: plan.sizeBytes,
    blockBytes: plan.blockBytes,
    verified: record.verified,
    verifiedBytes: record.verifiedBytes,
    isReleased: record.isReleased,
    mayCutOver: record.cutover !== "hold",
    isEngineHung: hung !== null,
    problem: hung?.message ??
      (running.engine === null && state === "attached" ? describeStop(running) : null),
    remedy: hung?.hint ?? null,
  };
}

function describeStop({ id, stored }: Pick<Running, "id" | "stored">): string {
  const { message } = notRunning(id);
  return stored === null ? `${message}, and its residency map cannot be read` : message;
}

/** `error`: why the journal cannot be read. */
export function brokenEntry(
  error: unknown,
  { host, hostId, driver, hung, ...running }: Running,
): DestinationEntry {
  const unknown: Endpoint = { host: "", path: "", reach: null, hostId: null };
  return {
    ...running,
    driverPid: driver?.pid ?? null,
    driverNote: driver?.note ?? null,
    isReadable: false,
    createdAt: "",
    state: "attached",
    goesBackAs: null,
    failback: null,
    source: unknown,
    destination: { ...unknown, host, hostId },
    options: {
      handoff: "manual",
      verify: false,
      holdCutover: false,
      byTicket: false,
      keepSource: false,
    },
    diskCount: 1,
    network: { portal: { address: "", port: 0 }, allow: "", tunnel: null },
    totalBytesPerSecond: null,
    isHandoffDecided: false,
    sizeBytes: running.engine?.sizeBytes ?? 0,
    blockBytes: running.engine?.blockBytes ?? 0,
    verified: null,
    verifiedBytes: 0,
    isReleased: false,
    mayCutOver: false,
    isEngineHung: hung !== null,
    problem: messageOf(error),
    remedy: error instanceof DlsmError ? error.hint ?? null : null,
  };
}
