/**
 * The migration as a state machine: what is to be done next, out of what both hosts say. Pure.
 *
 * Nothing is remembered between two looks: the state is what the hosts have in their journals and running, an
 * event is a change of that. So whoever looks next, after whatever crash, goes on from there. Each step can be
 * repeated; the host that it changes writes it into its journal before it acts.
 *
 * | a disk is                            | step         | does                                    | undone by        |
 * |--------------------------------------|--------------|-----------------------------------------|------------------|
 * | planned, not exported                | export       | source: journal, tgtd, target           | source.release   |
 * | planned, exported, goes back         | seed         | destination: map, out of the old one    | destination.abort|
 * | planned, exported (and seeded)       | attach       | destination: disk, map, engine          | destination.abort|
 * | attached (all), hand-off by command  | command      | runs it; destination: journal           |                  |
 * | attached (all), hand-off now or decided, or one disk was written to | handOff | fences each source, then activates each volume | before the first activation: source.unfence |
 * | without its engine                   | startEngine  | destination: starts it on its map       |                  |
 * | with an engine that does not answer  |              | waits                                   |                  |
 * | out of reach of its source, tgtd gone| startExport  | source: starts tgtd; tells the engine   |                  |
 * | active by a first write, not fenced   | fence        | source: journal, read-only, baseline    | source.unfence   |
 * | active, with another share of the limit | share     | destination: limits the sync            |                  |
 * | active (all), went back              | settle       | both: the old migration's records go    |                  |
 * | synced, to be verified               | verify       | both: hashes of what was fetched        |                  |
 * | synced                               | logOut       | engine: leaves the source for good      |                  |
 * | synced, logged out                   | release      | source: takes export, fence, record away|                  |
 * | synced, not exported any more        | noteReleased | destination: journal                    |                  |
 * | released (all)                       | finish       | destination: cut-over, record goes      |                  |
 *
 * Setting up (export, attach) is only done by the command that planned it or by `resume`; all the rest by
 * whoever drives.
 */
import { DifferenceError, FailedError, PreconditionError } from "../lib/errors.ts";
import { type DestinationEntry, migrationOf } from "../role/mod.ts";
import { destinationsOf, type DiskView, phaseOf, type View } from "./view.ts";

export const stepNames = [
  "export",
  "seed",
  "attach",
  "command",
  "handOff",
  "fence",
  "startEngine",
  "startExport",
  "settle",
  "share",
  "verify",
  "logOut",
  "release",
  "noteReleased",
  "finish",
] as const;

export interface Step {
  readonly name: (typeof stepNames)[number];
  /** The disk's id; the migration's for "command" and "handOff". */
  readonly id: string;
}

/** What only the looker knows. */
export interface Circumstances {
  /** Disks whose engine has been without its source for so long that its export is to be looked after. */
  readonly lost: ReadonlySet<string>;
}

/** The next step of setting up; undefined when every disk is attached. Throws if it cannot be set up. */
export function nextSetUpStep(view: View): Step | undefined {
  const first = requireWhole(view);
  for (const { id, source, destination } of view.disks) {
    if (destination === undefined || !isBeingSetUp(destination)) continue;
    if (first.options.byTicket) {
      throw new PreconditionError(`attaching ${view.id} was cut short`, {
        hint: `dlsm abort ${view.id}, then dlsm attach with its ticket again`,
      });
    }
    const isExported = source !== undefined && source.state === "exported" && source.tgtdPid !== null;
    if (!isExported) return { name: "export", id };
    // What was cut short while it was attached is taken back first, and its map with it.
    const { failback, sizeBytes, state } = destination;
    const isSeeded = failback === null || (state === "planned" && failback.seededBytes === sizeBytes);
    return { name: isSeeded ? "attach" : "seed", id };
  }
  return undefined;
}

/**
 * The steps of driving that can be made now, one a disk at most; none: there is only to wait. Throws
 * FailedError when somebody has to mend something first.
 */
export function nextSteps(view: View, circumstances: Circumstances): Step[] {
  const entries = destinationsOf(view);
  const isEnding = entries.every((entry) => phaseOf(entry) === "released");
  // The first disk ends last: its folder is the driver's place.
  if (isEnding) return entries.filter(({ isEngineHung }) => !isEngineHung).toReversed().map(endStep);

  requireWhole(view);
  const frozen = entries.find(({ goesBackAs }) => goesBackAs !== null);
  if (frozen !== undefined) throw goesBack(view.id, frozen.goesBackAs!);
  const unfinished = entries.find((entry) => isBeingSetUp(entry) || entry.state === "aborting");
  if (unfinished !== undefined) {
    const what = unfinished.state === "aborting" ? "abort" : "resume";
    throw new FailedError(`${view.id} was not ${what === "abort" ? "taken away" : "set up"} completely`, {
      hint: `dlsm ${what} ${view.id} does it over`,
    });
  }
  const steps = view.disks.flatMap((disk) => {
    const step = diskStep(view, disk, circumstances);
    return step === undefined ? [] : [step];
  });
  const handOff = handOffStep(view, entries);
  // Last: it may have to wait for somebody who still uses a source.
  return handOff === undefined ? steps : [...steps, handOff];
}

/** How the limit is shared now: equal parts for the disks that are not synced. Null: no limit. */
export function shareOf(entries: readonly DestinationEntry[]): number | null {
  const total = entries[0]?.totalBytesPerSecond ?? null;
  const count = entries.filter(isSyncing).length;
  return total === null ? null : Math.max(1, total / Math.max(1, count));
}

export function isSyncing(entry: DestinationEntry): boolean {
  return entry.engine !== null && entry.engine.state !== "synced";
}

function diskStep(view: View, { id, source, destination }: DiskView, { lost }: Circumstances) {
  if (destination === undefined || phaseOf(destination) === "released") return undefined;
  const step = (name: Step["name"]): Step => ({ name, id });
  const { engine, options } = destination;
  if (destination.isEngineHung) return undefined;
  if (engine === null) return step("startEngine");
  const isUnsettled = destination.failback !== null && !destination.failback.isSettled;
  if (isUnsettled && destinationsOf(view).every(({ isActivated }) => isActivated)) return step("settle");
  if (phaseOf(destination) === "synced") {
    if (options.verify && destination.verified === null) return step("verify");
    if (destination.verified === "different") {
      throw new DifferenceError(`verification of ${view.id} found a difference`, {
        hint: `the source's export is kept; dlsm verify ${view.id} looks again, and says where`,
      });
    }
    if (options.keepSource && !destination.mayCutOver) return undefined;
    if (!engine.isSourceDetached) return step("logOut");
    const isExported = source !== undefined || view.sourceProblem !== null;
    return step(isExported && !options.byTicket ? "release" : "noteReleased");
  }
  if (engine.sync === "stopped" && engine.state === "active") throw syncStopped(view.id, destination);
  if (lost.has(id) && !options.byTicket && (source === undefined || source.tgtdPid === null)) {
    return step("startExport");
  }
  if (
    engine.state === "active" && !options.byTicket && source?.state === "exported" && source.fence === null
  ) {
    return step("fence");
  }
  const share = shareOf(destinationsOf(view));
  return isOther(share, engine.limitBytesPerSecond) ? step("share") : undefined;
}

/** An engine that was killed is needed until the cut-over: its clients wait for it. */
function endStep({ id, state, engine }: DestinationEntry): Step {
  return { name: engine === null && state !== "finishing" ? "startEngine" : "finish", id };
}

function handOffStep(view: View, entries: readonly DestinationEntry[]): Step | undefined {
  const waiting = entries.filter((entry) => phaseOf(entry) === "attached");
  if (waiting.length === 0 || waiting.some(({ engine }) => engine === null)) return undefined;
  const hasBegun = waiting.length < entries.length;
  const { options: { handoff }, isHandoffDecided } = entries[0];
  if (hasBegun || isHandoffDecided || handoff === "now") return { name: "handOff", id: view.id };
  return handoff === "command" ? { name: "command", id: view.id } : undefined;
}

/** Throws if a record cannot be read, or disks are missing of which nothing was handed over. */
function requireWhole(view: View): DestinationEntry {
  const entries = destinationsOf(view);
  const broken = entries.find(({ isReadable }) => !isReadable);
  if (broken !== undefined) {
    throw new PreconditionError(broken.problem!, { hint: broken.remedy ?? undefined });
  }
  const [first] = entries;
  if (first === undefined) {
    throw new PreconditionError(`${view.id} is only an export on this host`, {
      hint: "give this command where its destination is, or name that host with --host",
    });
  }
  const areEnding = entries.every((entry) => phaseOf(entry) === "released");
  // Where one was handed over there is only the way on, with those that are left.
  const isActive = entries.some(({ isActivated }) => isActivated);
  if (entries.length < first.diskCount && !areEnding && !isActive) {
    throw new FailedError(
      `of the ${first.diskCount} disks of ${view.id} only ${entries.length} are here: its planning or its ` +
        "abort was cut short",
      { hint: `dlsm abort ${view.id}, then migrate anew` },
    );
  }
  return first;
}

/** The volume of `id` has ended, or is about to. */
export function goesBack(id: string, as: string): FailedError {
  return new FailedError(`${id} is going back as ${migrationOf(as)}`, {
    hint: `dlsm failback ${id} goes on with that, dlsm resume ${id} stays here`,
  });
}

function isBeingSetUp({ state }: DestinationEntry): boolean {
  return state === "planned" || state === "attaching";
}

function syncStopped(id: string, { destination, engine }: DestinationEntry): FailedError {
  const why = engine?.lastError ?? "it did not say why";
  return new FailedError(`the sync of ${id} to ${destination.host}:${destination.path} stopped: ${why}`, {
    hint: `mend that (make space, for instance), then dlsm resume ${id}; the volume goes on meanwhile`,
  });
}

/** Not for rounding. */
function isOther(wanted: number | null, present: number | null): boolean {
  if (wanted === null || present === null) return wanted !== present;
  return Math.abs(wanted - present) > 0.01 * wanted;
}
