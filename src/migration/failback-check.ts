/** Whether a migration's disks can go back to where they came from; if not, why not. Pure. */
import { FailedError, PreconditionError } from "../lib/errors.ts";
import type { DestinationEntry, SourceEntry } from "../role/mod.ts";
import { destinationsOf, type DiskView, phaseOf, type View } from "./view.ts";

/** Throws PreconditionError unless every disk can. `isForced`: although the volumes are in use. */
export function requireFailback(view: View, isForced: boolean): void {
  requireBothHosts(view);
  const entries = destinationsOf(view);
  if (entries.length === 0) {
    throw new PreconditionError(`${view.id} is only an export on this host: nothing can go back from here`, {
      hint: "give this command where its destination is, or name that host with --host",
    });
  }
  const [first] = entries;
  if (first.isReadable && entries.length !== first.diskCount) {
    throw cannot(view.id, `only ${entries.length} of its ${first.diskCount} disks are left`);
  }
  for (const disk of view.disks) requireDisk(view.id, disk);
  const clients = entries.reduce((sum, { engine }) => sum + (engine?.clients ?? 0), 0);
  if (clients === 0 || isForced) return;
  throw new PreconditionError(`${view.id} is still used over ${clients} NBD connection(s)`, {
    hint: "stop who uses the disk, then give the command again; --force disconnects them",
  });
}

/** Both of them take part in every step. */
export function requireBothHosts({ id, sourceProblem, destinationProblem }: View): void {
  const problem = destinationProblem ?? sourceProblem;
  if (problem === null) return;
  throw new FailedError(`${id} cannot go back now: ${problem}`, {
    hint: "give the command again when that host can be reached",
  });
}

function requireDisk(id: string, { source, destination: entry }: DiskView): void {
  if (entry === undefined) throw cannot(id, "a disk of it is only an export");
  if (!entry.isReadable) throw new PreconditionError(entry.problem!, { hint: entry.remedy ?? undefined });
  const reason = reasonOf(entry);
  if (reason !== undefined) throw cannot(id, ...reason);
  requireSource(id, entry, source);
  if (entry.engine === null) {
    throw cannot(id, "its engine does not run", `start it with dlsm resume ${id}, then go back`);
  }
}

/** What of the volume itself is against it, and what to do instead. */
function reasonOf(entry: DestinationEntry): [reason: string, hint?: string] | undefined {
  const { options, failback, verified, source, destination } = entry;
  const anew = wholeDisk(entry);
  if (options.byTicket) {
    return ["it was attached with a ticket, so that its source cannot be asked", anew];
  }
  const phase = phaseOf(entry);
  if (phase === "released") {
    return ["its source was released, and nobody keeps a record of what is written since", anew];
  }
  if (entry.state === "aborting") return ["it is being aborted"];
  if (phase === "exported" || phase === "attached") {
    return ["its hand-off has not happened: the disk is still in use where it was", "see dlsm abort"];
  }
  if (failback?.isWhole === false) {
    return [
      `it came back before all of it had left: ${source.host}:${source.path} never had all of its data`,
      `see it through here (${destination.host}:${destination.path} will be whole), ${anew}`,
    ];
  }
  return verified === "different"
    ? ["verification found a difference between the two disks", anew]
    : undefined;
}

function requireSource(id: string, entry: DestinationEntry, source: SourceEntry | undefined): void {
  const anew = wholeDisk(entry);
  if (source === undefined || source.state !== "exported") {
    throw cannot(id, "its source was released, and nobody keeps a record of what is written there", anew);
  }
  if (source.problem !== null) throw cannot(id, source.problem);
  if (source.fence === null) {
    throw cannot(id, "nobody knows if its source was written since the hand-off", anew);
  }
  if (source.danger !== null) throw cannot(id, source.danger, anew);
}

function wholeDisk({ destination, source }: DestinationEntry): string {
  return `when it is done, move the whole disk: dlsm migrate … ${destination.path} ${source.path} --force`;
}

function cannot(id: string, reason: string, hint?: string): PreconditionError {
  return new PreconditionError(`${id} cannot go back: ${reason}`, { hint });
}
