/** Setting a migration up: plan, export, attach, hand-off. Each step can be repeated, so that `resume` uses them too. */
import { randomInt } from "node:crypto";
import { execa } from "execa";
import { FailedError, InterruptedError, messageOf, PreconditionError } from "../lib/errors.ts";
import { formatSize } from "../lib/units.ts";
import {
  describeUsers,
  type DestinationEntry,
  type DiskUser,
  type MigrationOptions,
  type Plan,
} from "../role/mod.ts";
import { type Context, knownEntries } from "./context.ts";
import { nbdUriOf } from "./status.ts";

export interface MigrateRequest {
  readonly source: string;
  readonly destination: string;
  /** Undefined: now, if nobody has the source open for writing. */
  readonly handoff: "now" | "manual" | undefined;
  readonly handoffCommand: string | null;
  readonly activation: "explicit" | "first-write";
  readonly blockBytes: number;
  readonly bytesPerSecond: number | null;
  readonly sourceTimeoutMs: number | null;
  readonly verify: boolean;
  readonly holdCutover: boolean;
  readonly force: boolean;
}

/** Where the source's portal listens, and who may log in. */
const localAddress = "127.0.0.1";

/** Checks everything that can be checked and writes the plan down; nothing else is changed. Returns the id. */
export async function planMigration(context: Context, request: MigrateRequest): Promise<string> {
  const { source, destination, reporter } = context;
  const from = await source.ask("source.inspect", { path: request.source });
  const options: MigrationOptions = {
    handoff: request.handoffCommand !== null ? "command" : request.handoff ?? "now",
    handoffCommand: request.handoffCommand,
    verify: request.verify,
    holdCutover: request.holdCutover,
    byTicket: false,
  };
  if (options.handoff === "now" && !request.force) refuseUsers(`${from.host}:${from.path}`, from.users);
  const to = await destination.ask("destination.inspect", {
    path: request.destination,
    sizeBytes: from.sizeBytes,
    sourceBlockBytes: from.blockBytes,
    force: request.force,
    source: { host: from.host, identity: from.identity, standsOn: [...from.standsOn] },
  });
  if (to.freeBytes !== null && to.freeBytes < from.sizeBytes) {
    reporter.message(
      "warn",
      `${to.path} may get up to ${formatSize(from.sizeBytes)}, and its file system has ${
        formatSize(to.freeBytes)
      } ` +
        "left: if that is not enough the sync stops, and goes on with dlsm resume when there is space",
    );
  }
  const plan: Plan = {
    id: newId(),
    path: to.path,
    force: request.force,
    sizeBytes: from.sizeBytes,
    blockBytes: request.blockBytes,
    activation: request.activation,
    bytesPerSecond: request.bytesPerSecond,
    sourceTimeoutMs: request.sourceTimeoutMs,
    source: { host: from.host, path: from.path },
    options,
  };
  await destination.ask("destination.plan", plan);
  return plan.id;
}

/** From the plan to the attached volume; on failure everything is taken away again and the error thrown. */
export async function setUp(context: Context, id: string): Promise<DestinationEntry> {
  const { source, destination, signal } = context;
  try {
    const { destination: plan, source: exported } = await knownEntries(context, id);
    const isExported = exported !== undefined && exported.state !== "releasing";
    const ticket = isExported
      ? await source.ask("source.ensure", { id, force: false })
      : await source.ask("source.export", {
        id,
        path: plan!.source.path,
        portal: { address: localAddress, port: 0 },
        allow: localAddress,
        destination: plan!.destination,
      });
    if (!signal.aborted) return await destination.ask("destination.attach", { id, export: ticket });
  } catch (error) {
    await takeBack(context, id);
    throw error;
  }
  throw new InterruptedError(`interrupted while ${id} was being set up: nothing was handed over`, {
    hint: `go on with dlsm resume ${id}, or take it back with dlsm abort ${id}`,
  });
}

/** The hand-off, as the options say; returns whether it has happened (else somebody has to `activate`). */
export async function handOff(
  context: Context,
  entry: DestinationEntry,
  isForced: boolean,
): Promise<boolean> {
  const { id, options } = entry;
  if (entry.isActivated) return true;
  if (options.handoff === "manual") return false;
  if (options.handoff === "command") await runHandoffCommand(context, entry);
  await activate(context, id, isForced);
  return true;
}

/**
 * The hand-off of a migration that was just set up. If it is to be now and cannot, everything is taken back: a
 * command that is refused has changed nothing.
 */
export async function handOffNew(
  context: Context,
  entry: DestinationEntry,
  isForced: boolean,
): Promise<boolean> {
  const { id, options, source } = entry;
  if (options.handoff !== "now" || isForced || options.byTicket) {
    return await handOff(context, entry, isForced);
  }
  try {
    refuseUsers(`${source.host}:${source.path}`, await context.source.ask("source.writers", { id }));
  } catch (error) {
    await takeBack(context, id);
    throw error;
  }
  return await handOff(context, entry, isForced);
}

/** Refused while somebody can still write the source, unless forced. */
export async function activate(context: Context, id: string, isForced: boolean): Promise<void> {
  const { source: exported } = await knownEntries(context, id);
  if (exported !== undefined && !isForced) {
    const { host, path } = exported.source;
    refuseUsers(`${host}:${path}`, await context.source.ask("source.writers", { id }), id);
  }
  await context.destination.ask("destination.activate", { id });
}

async function runHandoffCommand(context: Context, entry: DestinationEntry): Promise<void> {
  const { id, options } = entry;
  const command = options.handoffCommand ?? "true";
  context.reporter.message("info", `running the hand-off command: ${command}`);
  const { exitCode, signal, failed } = await execa("/bin/sh", ["-c", command], {
    reject: false,
    stdin: "ignore",
    // Its output is for the log; stdout may carry the command's JSON.
    stdout: 2 as never,
    stderr: 2 as never,
    env: {
      DLSM_ID: id,
      DLSM_NBD_SOCKET: entry.nbdSocket,
      DLSM_NBD_URI: nbdUriOf(entry.nbdSocket),
      DLSM_SOURCE: entry.source.path,
      DLSM_DESTINATION: entry.destination.path,
    },
  });
  if (!failed) return;
  throw new FailedError(
    `the hand-off command ended with ${signal ?? `exit code ${exitCode}`}: nothing was handed over`,
    {
      hint:
        `try again with dlsm resume ${id}, hand over with dlsm activate ${id}, or give up with dlsm abort ${id}`,
    },
  );
}

/** Ends what was set up; the error that led here is more important than one of this. */
async function takeBack(context: Context, id: string): Promise<void> {
  try {
    await context.destination.ask("destination.abort", { id, force: false });
    await context.source.ask("source.release", { id, force: true });
  } catch (error) {
    context.reporter.message(
      "warn",
      `it could not be taken back (${messageOf(error)}): use dlsm abort ${id}`,
    );
  }
}

function refuseUsers(place: string, users: readonly DiskUser[], id?: string): void {
  if (users.length === 0) return;
  throw new PreconditionError(`the source ${place} can still be written by ${describeUsers(users)}`, {
    hint: id === undefined
      ? "stop that first; or attach now and hand over later with --handoff manual or --handoff-command"
      : `stop that, then dlsm activate ${id}; --force hands over all the same and risks what is written there`,
  });
}

/** Eight letters and digits; none that look alike. */
export function newId(): string {
  const alphabet = "abcdefghjkmnpqrstuvwxyz23456789";
  return Array.from({ length: 8 }, () => alphabet[randomInt(alphabet.length)]).join("");
}
