/** Steering one migration: resume, abort, hand over, limit, cut over. All of its disks together. */
import { FailedError, PreconditionError } from "../lib/errors.ts";
import type { DestinationEntry, RequestName } from "../role/mod.ts";
import { type Context, observeKnown } from "./context.ts";
import { backIdOf, turned, undoFailback } from "./failback-undo.ts";
import { goesBack, isSyncing, nextSetUpStep } from "./machine.ts";
import { setUp } from "./start.ts";
import { handOff } from "./hand-off.ts";
import { releaseAt, settle } from "./steps.ts";
import { cutOff, destinationsOf, phaseOf, type View } from "./view.ts";

/**
 * Brings everything back up, wherever it was cut short, and lifts a pause. True: a driver takes it from there.
 * False: only an export is here, which is up again.
 */
export async function resume(context: Context, id: string, isForced: boolean): Promise<boolean> {
  const force = isForced;
  const { source, destination } = context;
  const view = await observeKnown(context, id);
  if (view.destinationProblem !== null) throw cannotAsk(view.destinationProblem, id);
  if (destinationsOf(view).length === 0) {
    requireByHand(view);
    for (const disk of view.disks) await source.ask("source.ensure", { id: disk.id, force });
    return false;
  }
  if (destinationsOf(view).every((entry) => phaseOf(entry) === "released")) {
    for (const disk of view.disks) {
      await destination.ask("destination.ensure", { id: disk.id, export: null, force });
    }
    return true;
  }
  if (backIdOf(view) !== undefined) {
    await stay(context, view, isForced);
    return await resume(context, id, isForced);
  }
  if (nextSetUpStep(view) !== undefined) {
    if (view.sourceProblem !== null) throw cannotAsk(view.sourceProblem, id);
    await setUp(context, id);
    return true;
  }
  for (const { id: diskId, source: exported, destination: entry } of view.disks) {
    if (entry === undefined || entry.state === "finishing") continue;
    const isNeeded = !entry.isReleased && entry.engine?.state !== "synced" && exported !== undefined &&
      exported.state !== "releasing";
    const ticket = isNeeded ? await source.ask("source.ensure", { id: diskId, force }) : null;
    await destination.ask("destination.ensure", { id: diskId, export: ticket, force });
    await destination.ask("destination.resume", { id: diskId });
  }
  requireSources(view);
  return true;
}

/** Throws PreconditionError if the exports belong to a destination, which has no record of them. */
function requireByHand({ id, disks }: View): void {
  const end = disks.find(({ source }) => source?.destination != null)?.source?.destination;
  if (end == null) return;
  throw new PreconditionError(`${id} cannot go on: its destination, ${end.host}, knows nothing of it`, {
    hint: `dlsm abort ${id} takes the export away; the disk stays`,
  });
}

/** Throws FailedError if an export, of which blocks are still needed, is known not to be there any more. */
function requireSources(view: View): void {
  const entry = cutOff(view);
  if (entry === undefined) return;
  const { id } = view;
  const { destination: here, source: from } = entry;
  if (!entry.isActivated) {
    throw new FailedError(`the source of ${id} was released on ${from.host}, and nothing was handed over`, {
      hint: `it cannot go on: dlsm abort ${id} takes away what is here`,
    });
  }
  throw new FailedError(
    `the source of ${id} was released on ${from.host}, and not all of it is at ${here.host}:${here.path}`,
    {
      hint:
        `it cannot go on; keep both disks: ${from.host}:${from.path} is as it was at the hand-off, unless ` +
        `somebody wrote to it since, and what was written since is only at ${here.host}:${here.path}, which ` +
        `dlsm abort ${id} --force gives up`,
    },
  );
}

/** Of what was cut short on its way back. Throws FailedError if it has gone back already. */
async function stay(context: Context, view: View, isForced: boolean): Promise<void> {
  if (await undoFailback(context, view, { isForced, isSure: false })) return;
  const backId = backIdOf(view)!;
  const back = turned(context);
  const entries = destinationsOf(await observeKnown(back, backId));
  if (entries.every(({ isActivated }) => isActivated)) {
    for (const entry of entries) await settle(back, entry);
  }
  throw new FailedError(`${view.id} has gone back as ${backId}`, {
    hint: `see dlsm status ${backId}; dlsm resume ${backId} goes on with it`,
  });
}

/**
 * Takes everything away on both sides. After the hand-off only by force. True if the source is as it was before;
 * if not, it was said what is not.
 */
export async function abort(context: Context, id: string, isForced: boolean): Promise<boolean> {
  const { source, destination, reporter } = context;
  const view = await observeKnown(context, id);
  if (view.destinationProblem !== null && !isForced) throw cannotAsk(view.destinationProblem, id);
  const backId = backIdOf(view);
  if (backId !== undefined) throw goesBack(id, backId);
  // The first request decides for all disks, or is refused.
  for (const { id: diskId, destination: entry } of view.disks.toReversed()) {
    if (entry !== undefined) await destination.ask("destination.abort", { id: diskId, force: isForced });
  }
  let isAsBefore = true;
  for (const { id: diskId, source: exported, destination: entry } of view.disks) {
    // What was exported by hand is released by hand.
    if (entry?.options.byTicket === true) continue;
    // Also what was not there a moment ago: the command that set it up may only just have ended.
    if (view.sourceProblem === null) isAsBefore = await releaseAt(source, diskId, context) && isAsBefore;
    if (entry?.isReadable !== false) continue;
    const path = exported?.destination?.path ?? "the destination disk";
    reporter.message(
      "warn",
      `${path} was left as it was, because the journal of ${diskId} cannot be read`,
    );
  }
  const problem = view.sourceProblem ?? view.destinationProblem;
  if (problem === null) return isAsBefore;
  // This one may know nothing of the migration any more, and so not where the other one is.
  const { reach } = view.sourceProblem !== null ? source : destination;
  const where = reach === null ? "" : ` --host ${reach}`;
  throw new FailedError(`${id} is only taken away on one of its hosts: ${problem}`, {
    hint: `give dlsm abort ${id}${where} again when that host can be reached`,
  });
}

/** The hand-off. Refused while somebody can still write a source, unless forced. */
export async function activate(context: Context, id: string, isForced: boolean): Promise<void> {
  const view = await observeKnown(context, id);
  const unfinished = nextSetUpStep(view);
  if (unfinished !== undefined) {
    throw new PreconditionError(`${id} is not attached yet`, {
      hint: `finish its set-up with dlsm resume ${id}`,
    });
  }
  const isByTicket = destinationsOf(view).every(({ options }) => options.byTicket);
  if (view.sourceProblem !== null && !isByTicket) throw cannotAsk(view.sourceProblem, id);
  await handOff(context, view, isForced);
}

/** Limits the background sync of all disks together; null for no limit. */
export async function limit(context: Context, id: string, bytesPerSecond: number | null): Promise<void> {
  const entries = await knownDestinations(context, id);
  const syncing = entries.filter(isSyncing).length;
  const share = bytesPerSecond === null ? null : Math.max(1, bytesPerSecond / Math.max(1, syncing));
  for (const entry of entries) {
    await context.destination.ask("destination.limit", {
      id: entry.id,
      bytesPerSecond: share,
      totalBytesPerSecond: bytesPerSecond,
    });
  }
}

/** Asks every volume for the same. */
export async function askAll(
  context: Context,
  id: string,
  name: Extract<RequestName, "destination.pause" | "destination.resume">,
): Promise<void> {
  for (const entry of await knownDestinations(context, id)) {
    await context.destination.ask(name, { id: entry.id });
  }
}

/** Lets the cut-over happen. Throws PreconditionError, and changes nothing, while blocks are still absent. */
export async function allowCutover(context: Context, id: string, isForced: boolean): Promise<void> {
  const entries = await knownDestinations(context, id);
  for (const entry of entries) {
    const phase = phaseOf(entry);
    if (phase === "synced" || phase === "released") continue;
    throw new PreconditionError(
      `${entry.id} is ${phase}: there is nothing to cut over to before it is synced`,
      {
        hint: phase === "active"
          ? `see dlsm status ${id} for when that will be`
          : `hand over first: dlsm activate ${id}`,
      },
    );
  }
  for (const entry of entries) {
    await context.destination.ask("destination.allowCutover", { id: entry.id, force: isForced });
  }
}

/** The volumes of a migration, at least one. */
export async function knownDestinations(context: Context, id: string): Promise<DestinationEntry[]> {
  const view = await observeKnown(context, id);
  if (view.destinationProblem !== null) throw cannotAsk(view.destinationProblem, id);
  return requireDestinations(view);
}

function requireDestinations(view: View): DestinationEntry[] {
  const entries = destinationsOf(view);
  const broken = entries.find(({ isReadable }) => !isReadable);
  if (broken !== undefined) {
    throw new PreconditionError(broken.problem!, { hint: broken.remedy ?? undefined });
  }
  if (entries.length > 0) return entries;
  throw new PreconditionError(`${view.id} is only an export on this host`, {
    hint: "give this command where its destination is, or name that host with --host",
  });
}

function cannotAsk(problem: string, id: string): FailedError {
  return new FailedError(`${id} cannot be looked after: ${problem}`, {
    hint: "give the command again when that host can be reached",
  });
}
