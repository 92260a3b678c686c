/** Steering one migration: resume, abort, cut over. */
import { PreconditionError } from "../lib/errors.ts";
import type { DestinationEntry } from "../role/mod.ts";
import { type Context, knownEntries } from "./context.ts";
import { handOff, setUp } from "./start.ts";
import { phaseOf } from "./status.ts";

/**
 * Brings everything back up, wherever it was cut short, and lifts a pause. True: a driver takes it from there.
 * False: only an export is here, which is up again.
 */
export async function resume(context: Context, id: string, isForced: boolean): Promise<boolean> {
  const force = isForced;
  const { source, destination } = context;
  const entries = await knownEntries(context, id);
  let entry = entries.destination;
  if (entry === undefined) {
    await source.ask("source.ensure", { id, force });
    return false;
  }
  if (entry.state === "finishing") {
    await destination.ask("destination.ensure", { id, export: null, force });
    return true;
  }
  if (entry.state === "planned" || entry.state === "attaching") {
    if (entry.options.byTicket) {
      throw new PreconditionError(`attaching ${id} was cut short`, {
        hint: `dlsm abort ${id}, then dlsm attach with its ticket again`,
      });
    }
    entry = await setUp(context, id);
  } else {
    const isNeeded = !entry.isReleased && entry.engine?.state !== "synced" && entries.source !== undefined &&
      entries.source.state !== "releasing";
    const ticket = isNeeded ? await source.ask("source.ensure", { id, force }) : null;
    entry = await destination.ask("destination.ensure", { id, export: ticket, force });
    await destination.ask("destination.resume", { id });
  }
  await handOff(context, entry, false);
  return true;
}

/** Takes everything away on both sides. After the hand-off only by force. */
export async function abort(context: Context, id: string, isForced: boolean): Promise<void> {
  const { source, destination } = await knownEntries(context, id);
  await context.destination.ask("destination.abort", { id, force: isForced });
  // What was exported by hand is released by hand.
  if (destination?.options.byTicket !== true) {
    await context.source.ask("source.release", { id, force: true });
  }
  if (destination?.isReadable === false) {
    const path = source?.destination?.path ?? "the destination disk";
    context.reporter.message(
      "warn",
      `${path} was left as it was, because the journal of ${id} cannot be read`,
    );
  }
}

/** Lets the cut-over happen. Throws PreconditionError, and changes nothing, while blocks are still absent. */
export async function allowCutover(context: Context, id: string, isForced: boolean): Promise<void> {
  const entry = await knownDestination(context, id);
  const phase = phaseOf(entry);
  if (phase !== "synced" && phase !== "released") {
    throw new PreconditionError(`${id} is ${phase}: there is nothing to cut over to before it is synced`, {
      hint: phase === "active"
        ? `see dlsm status ${id} for when that will be`
        : `hand over first: dlsm activate ${id}`,
    });
  }
  await context.destination.ask("destination.allowCutover", { id, force: isForced });
}

export async function knownDestination(context: Context, id: string): Promise<DestinationEntry> {
  const { destination } = await knownEntries(context, id);
  if (destination?.isReadable === false) {
    throw new PreconditionError(destination.problem!, { hint: destination.remedy ?? undefined });
  }
  if (destination === undefined) {
    throw new PreconditionError(`${id} is only an export on this machine`, {
      hint: "give this command where its destination is",
    });
  }
  return destination;
}
