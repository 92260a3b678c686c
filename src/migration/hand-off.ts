/**
 * The hand-off of all disks of a migration: each source is fenced, then each volume activated. Refused while
 * somebody can still write a source; what this attempt changed is undone then. From the first volume that is
 * activated it can only go forward.
 */
import { execa } from "execa";
import { DlsmError, FailedError, messageOf, PreconditionError, UnreachableError } from "../lib/errors.ts";
import { type DestinationEntry, migrationOf } from "../role/mod.ts";
import { RemoteError, RpcClosedError, RpcTimeoutError } from "../rpc/mod.ts";
import type { Context } from "./context.ts";
import { nbdUriOf } from "./status.ts";
import { destinationsOf, phaseOf, type View } from "./view.ts";

export async function handOff(context: Context, view: View, isForced: boolean): Promise<void> {
  const waiting = destinationsOf(view).filter((entry) => phaseOf(entry) === "attached");
  const made: string[] = [];
  try {
    for (const { id, options } of waiting) {
      if (options.byTicket) continue;
      const { stood } = await context.source.ask("source.fence", { id, force: isForced });
      if (!stood) made.push(id);
    }
    for (const { failback } of waiting) await requireUnchanged(context, failback?.of);
    for (const { id } of waiting) await context.destination.ask("destination.activate", { id });
  } catch (error) {
    if (isRefusal(error)) await unfence(context, view.id, made);
    throw error;
  }
}

/**
 * Runs the user's command, which moves who uses the disk, and writes down that it has: it is not run again.
 * It is the text that this machine's user gave, never what a host says. Throws FailedError if it ends badly.
 */
export async function runHandoffCommand(context: Context, view: View, command: string): Promise<void> {
  const { id } = view;
  const entries = destinationsOf(view);
  const [first] = entries;
  context.reporter.message("info", `running the hand-off command: ${command}`);
  const { exitCode, signal, failed } = await execa("/bin/sh", ["-c", command], {
    reject: false,
    stdin: "ignore",
    // Its output is for the log; stdout may carry the command's JSON.
    stdout: 2 as never,
    stderr: 2 as never,
    env: environmentOf(id, first),
  });
  if (failed) {
    throw new FailedError(
      `the hand-off command ended with ${signal ?? `exit code ${exitCode}`}: nothing was handed over`,
      {
        hint:
          `try again with dlsm resume ${id}, hand over with dlsm activate ${id}, or give up with dlsm abort ${id}`,
      },
    );
  }
  for (const entry of entries) await context.destination.ask("destination.decideHandoff", { id: entry.id });
}

function environmentOf(id: string, { nbdSocket, source, destination }: DestinationEntry) {
  return {
    DLSM_ID: id,
    DLSM_NBD_SOCKET: nbdSocket,
    DLSM_NBD_URI: nbdUriOf(nbdSocket),
    DLSM_SOURCE: source.path,
    DLSM_SOURCE_HOST: source.host,
    DLSM_DESTINATION: destination.path,
    DLSM_DESTINATION_HOST: destination.host,
  };
}

/** Of the disk that goes back only what was written comes again: the rest must be as it was left. */
async function requireUnchanged({ destination }: Context, of: string | undefined): Promise<void> {
  const change = of === undefined ? null : await destination.ask("source.changed", { id: of });
  if (change === null) return;
  throw new PreconditionError(`the disk cannot go back to what it was: ${change}`, {
    hint: `stay with dlsm resume ${migrationOf(of!)}, or move the whole disk there with a new migration`,
  });
}

/** Whether a host said no, so that what was asked for has not happened. */
function isRefusal(error: unknown): boolean {
  const isUnknown = error instanceof UnreachableError || error instanceof RpcTimeoutError ||
    error instanceof RpcClosedError || error instanceof RemoteError;
  return error instanceof DlsmError && !isUnknown;
}

/**
 * Takes the fences back that this attempt made, unless a volume was activated, by whomever, or may still be: an
 * engine that does not answer may have been asked.
 */
async function unfence(
  { source, destination, reporter }: Context,
  id: string,
  made: readonly string[],
): Promise<void> {
  try {
    const entries = await destination.ask("destination.list", { id });
    if (entries.some(({ isActivated }) => isActivated)) return;
    const hung = entries.find(({ isEngineHung }) => isEngineHung);
    if (hung !== undefined) throw new FailedError(hung.problem ?? "an engine does not answer");
    for (const diskId of made) await source.ask("source.unfence", { id: diskId });
  } catch (error) {
    reporter.message("warn", `the source of ${id} may still be read-only: ${messageOf(error)}`);
  }
}
