/**
 * A disk goes back: the migration ID (from A to B) ends, and another one, ID2 (from B to A), begins, of which
 * A has everything already but what was written at B since the hand-off. Each disk of several does the same.
 *
 * | step                  | on B                           | on A                              | what is good where      |
 * |-----------------------|--------------------------------|-----------------------------------|-------------------------|
 * | (ID in use)           | map of ID: what was written    | disk fenced, with a baseline      | B, with A's for absent  |
 * | 1 freeze              | ID frozen as ID2; engine ends  |                                   | the same, nobody writes |
 * | 2 lift, plan          |                                | fence lifted, baseline kept; ID2 planned | the same         |
 * | 3 export              | ID2 exported                   |                                   | the same                |
 * | 4 seed                | (tells what was written)       | ID2's map: all but that           | the same                |
 * | 5 attach              |                                | ID2's engine logs in, serves nobody | the same              |
 * | 6 fence, look, activate | disk fenced                  | content as the baseline? then ID2's hand-off, durable | A, with B's for absent |
 * | 7 settle              | ID's record goes               | ID's export goes, ID2 settled     | the same                |
 *
 * Step 6 is the point of no return, and it is written in one place: ID2's map at A, synced before its engine
 * listens. Until then nobody has written to either disk, so that everything can be undone; from then on ID2
 * is an ordinary migration (its driver does step 7 too, if this process does not).
 *
 * Killed at any step: ID's record on B names ID2 until step 7, and ID2's record on A, which tells on which side of
 * step 6 it is, stays until long after step 7. So `failback` and `resume` (to stay at B) find out which it was.
 *
 * Two commands at once, one that goes back and one that stays, must not both succeed. Who stays writes "thawing" on B,
 * then removes ID2 from A (refused after step 6), then the export, then thaws. Who goes back plans ID2 before it asks
 * what was written, which is not told any more when B is thawing: a plan that was removed cannot be seeded again,
 * and an ID2 without its export or its record cannot be activated.
 *
 * Why A's disk is right: what is marked fetched or absent in ID's map was never written at B, and A's disk has not
 * changed since its fence (looked at last in step 6). B marks a block before it overwrites it; where marks were
 * lost with the power, all that was fetched goes back too.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { FailedError, InterruptedError, messageOf, PreconditionError } from "../lib/errors.ts";
import type { DestinationEntry } from "../role/mod.ts";
import { type Context, endedStatusAt, observe, observeKnown, reached } from "./context.ts";
import { requireBothHosts, requireFailback } from "./failback-check.ts";
import { backDiskOf, backIdOf, turned, undoFailback } from "./failback-undo.ts";
import { chooseNetwork, type NetworkWishes } from "./network.ts";
import { handOffNew, newId, setUp } from "./start.ts";
import { handOff } from "./hand-off.ts";
import { settle } from "./steps.ts";
import { destinationsOf, type View } from "./view.ts";

/** A driver notices within a second that it has nothing more to do, unless it waits for a host. */
const driverTimeoutMs = 60_000;
const driverPollMs = 100;

export interface FailbackRequest extends NetworkWishes {
  /** Clients of the volumes are disconnected. */
  readonly force: boolean;
  /** Told of the new migration's id before anything is changed. */
  begin(backId: string): void;
}

/**
 * Returns the id of the migration that goes back, when its disks are in use at the old source; it is to be
 * driven to its end. Throws PreconditionError if it cannot go back. On failure everything is undone.
 */
export async function failback(context: Context, id: string, request: FailbackRequest): Promise<string> {
  const view = await observeKnown(context, id);
  const known = backIdOf(view);
  if (known === undefined) requireFailback(view, request.force);
  else requireBothHosts(view);
  if (destinationsOf(view).some(({ state }) => state === "thawing")) {
    throw new PreconditionError(`${id} was going back, and that is being undone`, {
      hint: `finish that with dlsm resume ${id}, then go back`,
    });
  }
  const backId = known ?? newId();
  request.begin(backId);
  try {
    await goBack(context, view, backId, request);
  } catch (error) {
    const isDone = !context.signal.aborted && await isGone(context, backId);
    if (!isDone) throw await undone(context, view.id, backId, { error, isSure: known === undefined });
  }
  await context.destination.ask("driver.leave", { id, goOn: false });
  return backId;
}

/**
 * Whether another process was quicker: the new migration's driver, which goes on by itself once it is attached. Then
 * nothing of the old migration is left.
 */
async function isGone(context: Context, backId: string): Promise<boolean> {
  const back = turned(context);
  const hasEnded = async () =>
    (await reached(() => endedStatusAt(back.destination, backId))).answer !== undefined;
  const entries = destinationsOf(await observe(back, backId));
  if (entries.length === 0) return await hasEnded();
  if (!entries.every(({ isActivated }) => isActivated)) return false;
  try {
    for (const entry of entries) await settle(back, entry);
    return true;
  } catch {
    // What keeps it from being settled is told by whoever finds out that it cannot be undone.
    return await hasEnded();
  }
}

async function goBack(context: Context, view: View, backId: string, request: FailbackRequest): Promise<void> {
  const back = turned(context);
  const found = await observe(back, backId);
  requireBothHosts(found);
  if (destinationsOf(found).some(({ isActivated }) => isActivated)) {
    // Of several disks only some, perhaps: now the others have to follow.
    await handOff(back, found, request.force);
  } else {
    await freeze(context, view, backId, request.force);
    await plan(context, view, found, { ...request, backId });
    const ready = await setUp(back, backId);
    await handOffNew(back, ready, { isForced: request.force, command: null });
  }
  for (const entry of destinationsOf(await observeKnown(back, backId))) await settle(back, entry);
}

/** Ends the volumes; afterwards nobody drives the migration, and its sources are as they were left. */
async function freeze(context: Context, view: View, backId: string, isForced: boolean): Promise<void> {
  const { source, destination } = context;
  for (const { id } of destinationsOf(view)) {
    const as = backDiskOf(view.id, backId, id);
    await destination.ask("destination.freeze", { id, as, force: isForced });
  }
  const deadline = performance.now() + driverTimeoutMs;
  while (!await destination.ask("driver.take", { id: view.id })) {
    if (performance.now() > deadline) {
      throw new FailedError(`another dlsm drives ${view.id} and does not stop`);
    }
    await sleep(driverPollMs, undefined, { signal: context.signal });
  }
  for (const { id } of destinationsOf(view)) {
    const change = await source.ask("source.changed", { id });
    if (change !== null) throw new PreconditionError(`${view.id} cannot go back: ${change}`);
  }
}

/** Lets the old sources be written, and plans their migration; `found`: what is planned already. */
async function plan(
  context: Context,
  { id }: View,
  found: View,
  request: FailbackRequest & { readonly backId: string },
): Promise<void> {
  const back = turned(context);
  const entries = destinationsOf(await observeKnown(context, id));
  for (const entry of entries) await back.destination.ask("source.lift", { id: entry.id });
  const missing = entries.filter(({ goesBackAs }) => found.disks.every((disk) => disk.id !== goesBackAs));
  if (missing.length === 0) return;
  const { network, sourceReach, destinationReach } = await chooseNetwork(back, {
    portal: request.portal,
    tunnel: request.tunnel || entries.some((entry) => entry.network.tunnel !== null),
  });
  const { hostId } = await back.source.ask("host.identify", {});
  for (const entry of missing) {
    const from = await back.source.ask("source.inspect", { path: entry.destination.path });
    requireSectors(entry, from.blockBytes);
    const isWhole = entry.stored?.residentBytes === entry.sizeBytes;
    await back.destination.ask("destination.plan", {
      id: backDiskOf(id, request.backId, entry.id),
      diskCount: entry.diskCount,
      network,
      path: entry.source.path,
      force: true,
      sizeBytes: entry.sizeBytes,
      blockBytes: entry.blockBytes,
      activation: "explicit",
      bytesPerSecond: entry.totalBytesPerSecond,
      sourceTimeoutMs: null,
      source: { host: from.host, path: from.path, reach: sourceReach, hostId },
      destinationReach,
      options: {
        handoff: "now",
        // A disk that never had everything cannot be compared.
        verify: entry.options.verify && isWhole,
        holdCutover: false,
        byTicket: false,
        keepSource: false,
      },
      failback: { of: entry.id, isWhole },
    });
  }
}

/** The end of the old source may be a part of one of the other disk's sectors. */
function requireSectors({ id, sizeBytes, destination }: DestinationEntry, sectorBytes: number): void {
  if (sizeBytes % sectorBytes === 0) return;
  throw new PreconditionError(
    `${id} cannot go back: ${destination.path} has sectors of ${sectorBytes} bytes, and its ${sizeBytes} bytes ` +
      "do not end with one",
  );
}

/** Undoes what was done, if it can be; the error to be thrown. */
async function undone(
  context: Context,
  id: string,
  backId: string,
  { error, isSure }: { readonly error: unknown; readonly isSure: boolean },
): Promise<unknown> {
  const both = `dlsm failback ${id} goes on with that, dlsm resume ${id} stays here`;
  if (context.signal.aborted) {
    return new InterruptedError(`interrupted while ${id} was going back as ${backId}`, {
      hint: both,
      cause: error,
    });
  }
  let hasGone: boolean;
  try {
    const view = await observe(context, id);
    if (view.destinationProblem === null && destinationsOf(view).length === 0) {
      // It has gone back, as this one if that was begun before.
      hasGone = !isSure;
    } else {
      hasGone = !await undoFailback(context, view, { isForced: false, isSure });
    }
    if (!hasGone) await bringUp(context, id);
  } catch (cause) {
    context.reporter.message("warn", `${id} is frozen still, that could not be undone: ${messageOf(cause)}`);
    return new FailedError(messageOf(error), { hint: both, cause: error });
  } finally {
    await context.destination.ask("driver.leave", { id, goOn: true }).catch(() => {});
  }
  if (!hasGone) return error;
  return new FailedError(`${id} has gone back as ${backId}, but: ${messageOf(error)}`, {
    hint: `dlsm resume ${backId} goes on`,
    cause: error,
  });
}

/** As it was before. */
async function bringUp({ source, destination, ...context }: Context, id: string): Promise<void> {
  const { disks } = await observeKnown({ source, destination, ...context }, id);
  for (const { id: diskId, source: exported } of disks) {
    const isThere = exported?.state === "exported";
    const ticket = isThere ? await source.ask("source.ensure", { id: diskId, force: false }) : null;
    await destination.ask("destination.ensure", { id: diskId, export: ticket, force: false });
  }
}
