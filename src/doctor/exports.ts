/** Exports whose destination knows nothing of them (any more): told by asking both hosts. */
import { setTimeout as sleep } from "node:timers/promises";
import { migrationOf, type SourceEntry } from "../role/mod.ts";
import type { Reached } from "./between.ts";
import { type HostFinding, of } from "./finding.ts";

/** An abort takes the destination's part away first, and the export a little later. */
const graceMs = 3_000;

export async function orphanedExports(reached: readonly Reached[]): Promise<HostFinding[]> {
  const first = await orphans(reached);
  if (first.length === 0) return [];
  await sleep(graceMs);
  const second = await orphans(reached);
  return second.filter(({ host, subject }) =>
    first.some((each) => each.host === host && each.subject === subject)
  );
}

/** Hosts that cannot be asked any more say nothing, for or against. */
async function orphans(reached: readonly Reached[]): Promise<HostFinding[]> {
  // The exports first: a destination is planned before its source is exported.
  const exported = await Promise.all(reached.map(async (one) => ({
    one,
    entries: await one.host.ask("source.list", {}).catch(() => []),
  })));
  const known = await Promise.all(reached.map(async ({ host, facts }) => ({
    hostname: facts.hostname,
    hostId: facts.hostId,
    ids: await host.ask("destination.list", {}).then((entries) => entries.map(({ id }) => id), () => null),
  })));
  return exported.flatMap(({ one, entries }) =>
    entries.flatMap((entry) => {
      const doubt = orphaned(entry, known);
      return doubt === undefined ? [] : [orphan(one.name, entry, doubt)];
    })
  );
}

interface Known {
  readonly hostname: string;
  readonly hostId: string | null;
  /** Disks that the host is the destination of; null: it did not say. */
  readonly ids: readonly string[] | null;
}

/**
 * "surely": its destination, the very host, does not know it. "perhaps": that host was not asked, only others of
 * its name, which do not: their state folder may be a new one, or another user's. Undefined: it may be in use.
 */
export function orphaned(
  { id, state, problem, destination }: Pick<SourceEntry, "id" | "state" | "problem" | "destination">,
  known: readonly Known[],
): "surely" | "perhaps" | undefined {
  // One without a destination was made by hand, for a ticket.
  if (problem !== null || state !== "exported" || destination === null) return undefined;
  const { host, hostId: wanted } = destination;
  const itself = known.filter(({ hostId }) => wanted !== null && hostId === wanted);
  const there = itself.length > 0 ? itself : known.filter(({ hostname }) => hostname === host);
  if (there.length === 0 || there.some(({ ids }) => ids === null || ids.includes(id))) return undefined;
  return itself.length > 0 ? "surely" : "perhaps";
}

function orphan(
  name: string,
  { id, source, destination, fence }: SourceEntry,
  doubt: "surely" | "perhaps",
): HostFinding {
  const host = destination!.host;
  const release = `dlsm release ${migrationOf(id)}`;
  return of(name, {
    check: "export",
    level: "stray",
    subject: id,
    message: `${source.path} is exported for ${id}, of which ${host} knows nothing (any more)`,
    remedy: doubt === "perhaps"
      ? `${release} on this host, if no other dlsm at ${host} needs it`
      // It is refused without, when the hand-off has happened.
      : `${release}${fence === null ? "" : " --force"} on this host`,
    cleanable: false,
  });
}
