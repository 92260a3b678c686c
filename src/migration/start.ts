/** Setting a migration up: what can be checked is checked, then planned, exported, attached, handed over. */
import { randomInt } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { FailedError, InterruptedError, LockedError, messageOf, PreconditionError } from "../lib/errors.ts";
import { formatSize } from "../lib/units.ts";
import type { Reporter } from "../report/mod.ts";
import { describeUsers, type InspectedSource, type MigrationOptions, type Plan } from "../role/mod.ts";
import { type Context, observe, observeKnown } from "./context.ts";
import { nextSetUpStep } from "./machine.ts";
import { chooseNetwork, type NetworkWishes } from "./network.ts";
import { handOff, runHandoffCommand } from "./hand-off.ts";
import { doSetUpStep } from "./steps.ts";
import { destinationsOf, diskIds, phaseOf, type View } from "./view.ts";

/** So long another process may have the driver's place before it counts as one that sets up, too. */
const placeTimeoutMs = 5_000;
const placePollMs = 100;

export interface MigrateRequest extends NetworkWishes {
  readonly id: string;
  /** Paths on the source's and the destination's host. */
  readonly disks: readonly { readonly source: string; readonly destination: string }[];
  /** Undefined: now, if nobody has a source open for writing. */
  readonly handoff: "now" | "manual" | undefined;
  /** A command of the user's is the hand-off. */
  readonly isByCommand: boolean;
  readonly activation: "explicit" | "first-write";
  readonly blockBytes: number;
  /** For all disks together. */
  readonly bytesPerSecond: number | null;
  readonly sourceTimeoutMs: number | null;
  readonly verify: boolean;
  readonly holdCutover: boolean;
  readonly keepSource: boolean;
  readonly force: boolean;
}

/** Checks everything that can be checked on both hosts and writes the plan down; nothing else is changed. */
export async function planMigration(context: Context, request: MigrateRequest): Promise<void> {
  const { destination } = context;
  const options: MigrationOptions = {
    handoff: request.isByCommand ? "command" : request.handoff ?? "now",
    verify: request.verify,
    holdCutover: request.holdCutover || request.keepSource,
    byTicket: false,
    keepSource: request.keepSource,
  };
  const chosen = await chooseNetwork(context, request);
  const ids = diskIds(request.id, request.disks.length);
  const plans: Plan[] = [];
  for (const [index, paths] of request.disks.entries()) {
    const disk = await inspectDisk(context, request, paths, options);
    plans.push({
      id: ids[index],
      diskCount: ids.length,
      network: chosen.network,
      path: disk.to.path,
      force: request.force,
      sizeBytes: disk.from.sizeBytes,
      blockBytes: request.blockBytes,
      activation: request.activation,
      bytesPerSecond: request.bytesPerSecond,
      sourceTimeoutMs: request.sourceTimeoutMs,
      source: { host: disk.from.host, path: disk.from.path, reach: chosen.sourceReach, hostId: null },
      destinationReach: chosen.destinationReach,
      options,
      failback: null,
    });
  }
  try {
    const { hostId } = await context.source.ask("host.identify", {});
    for (const plan of plans) {
      await destination.ask("destination.plan", { ...plan, source: { ...plan.source, hostId } });
    }
  } catch (error) {
    await takeBack(context, request.id);
    throw error;
  }
}

async function inspectDisk(
  { source, destination, reporter }: Context,
  { force }: MigrateRequest,
  paths: MigrateRequest["disks"][number],
  { handoff }: MigrationOptions,
) {
  const from = await source.ask("source.inspect", { path: paths.source });
  if (handoff === "now" && !force && from.users.length > 0) {
    throw new PreconditionError(
      `the source ${from.host}:${from.path} can still be written by ${describeUsers(from.users)}`,
      {
        hint: "stop that first; or attach now and hand over later with --handoff manual or --handoff-command",
      },
    );
  }
  const { bootId } = await source.facts();
  const to = await destination.ask("destination.inspect", {
    path: paths.destination,
    sizeBytes: from.sizeBytes,
    sourceBlockBytes: from.blockBytes,
    force,
    source: { bootId, identity: from.identity, standsOn: [...from.standsOn] },
  });
  if (to.freeBytes !== null) checkSpace(reporter, from, { ...to, freeBytes: to.freeBytes }, force);
  return { from, to };
}

/** Throws PreconditionError if the source's data cannot fit, unless forced; warns if it may grow too large. */
function checkSpace(
  reporter: Reporter,
  from: InspectedSource,
  to: { readonly host: string; readonly path: string; readonly freeBytes: number },
  isForced: boolean,
): void {
  const [free, allocated] = [formatSize(to.freeBytes), formatSize(from.allocatedBytes)];
  if (to.freeBytes < from.allocatedBytes && !isForced) {
    throw new PreconditionError(
      `the source ${from.host}:${from.path} takes up ${allocated}, and the file system of the destination ` +
        `${to.host}:${to.path} has ${free} left`,
      { hint: "make space there or name another destination; --force begins all the same" },
    );
  }
  if (to.freeBytes >= from.sizeBytes) return;
  reporter.message(
    "warn",
    `${to.path} may get up to ${formatSize(from.sizeBytes)}, and its file system has ${free} left: if that ` +
      "is not enough the sync stops, and goes on with dlsm resume when there is space",
  );
}

/** From the plan to the attached volumes; on failure everything is taken away again and the error thrown. */
export async function setUp(context: Context, id: string): Promise<View> {
  await takePlace(context, id);
  try {
    for (;;) {
      const view = await observeKnown(context, id);
      requireAnswers(view);
      const step = nextSetUpStep(view);
      if (step === undefined) return view;
      if (context.signal.aborted) break;
      await doSetUpStep(context, view, step);
    }
  } catch (error) {
    await takeBack(context, id);
    throw error;
  }
  throw interrupted(id);
}

function interrupted(id: string): InterruptedError {
  return new InterruptedError(`interrupted while ${id} was being set up: nothing was handed over`, {
    hint: `go on with dlsm resume ${id}, or take it back with dlsm abort ${id}`,
  });
}

/**
 * Takes the driver's place. The process that follows a command which was killed or interrupted has it for a moment,
 * until it sees that it can do nothing; who sets up has it for longer. Throws LockedError, InterruptedError,
 * or PreconditionError if the migration is gone.
 */
async function takePlace(context: Context, id: string): Promise<void> {
  const deadline = performance.now() + placeTimeoutMs;
  while (!await context.destination.ask("driver.take", { id })) {
    if (context.signal.aborted) throw interrupted(id);
    await observeKnown(context, id);
    if (performance.now() >= deadline) {
      throw new LockedError(`${id} is being set up by another command`, { hint: `see dlsm status ${id}` });
    }
    await sleep(placePollMs);
  }
}

/** A host that does not answer is no host without records. */
function requireAnswers({ id, sourceProblem, destinationProblem }: View): void {
  const problem = destinationProblem ?? sourceProblem;
  if (problem === null) return;
  throw new FailedError(`the set-up of ${id} was cut short: ${problem}`, {
    hint: `when that host can be reached: dlsm resume ${id} goes on, dlsm abort ${id} takes it back`,
  });
}

/**
 * The hand-off of a migration that was just set up, as its options say; returns whether it has happened (else
 * somebody has to `activate`). If it is to be now and cannot, everything is taken back: a command that is
 * refused has changed nothing.
 */
export async function handOffNew(
  context: Context,
  view: View,
  { isForced, command }: { readonly isForced: boolean; readonly command: string | null },
): Promise<boolean> {
  const entries = destinationsOf(view);
  if (entries.every((entry) => phaseOf(entry) !== "attached")) return true;
  const [{ options }] = entries;
  switch (options.handoff) {
    case "manual":
      return false;
    case "command":
      if (command === null) return false;
      await runHandoffCommand(context, view, command);
      try {
        await handOff(context, view, isForced);
      } catch (error) {
        // The command has been run: that is not nothing.
        if (!(error instanceof PreconditionError)) throw error;
        throw new FailedError(error.message, { hint: error.hint, cause: error });
      }
      return true;
    case "now":
      try {
        await handOff(context, view, isForced);
        return true;
      } catch (error) {
        if (!options.byTicket && error instanceof PreconditionError) await takeBack(context, view.id);
        throw error;
      }
  }
}

/** Ends what was set up and not handed over; the error that led here is more important than one of this. */
async function takeBack(context: Context, id: string): Promise<void> {
  try {
    const { disks, sourceProblem, destinationProblem } = await observe(context, id);
    const problem = destinationProblem ?? sourceProblem;
    if (problem !== null) throw new FailedError(problem);
    for (const { id: diskId, destination } of disks) {
      if (destination !== undefined) {
        await context.destination.ask("destination.abort", { id: diskId, force: false });
      }
      await context.source.ask("source.release", { id: diskId, force: true });
    }
  } catch (error) {
    context.reporter.message(
      "warn",
      `it could not be taken back (${messageOf(error)}): use dlsm abort ${id}`,
    );
  }
}

/** Eight letters and digits; none that look alike. */
export function newId(): string {
  const alphabet = "abcdefghjkmnpqrstuvwxyz23456789";
  return Array.from({ length: 8 }, () => alphabet[randomInt(alphabet.length)]).join("");
}
