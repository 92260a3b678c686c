/** Exports whose destination knows nothing of them (any more): told by asking both hosts. */
import { setTimeout as sleep } from "node:timers/promises";
import type { SourceEntry } from "../role/mod.ts";
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
    ids: await host.ask("destination.list", {}).then((entries) => entries.map(({ id }) => id), () => null),
  })));
  return exported.flatMap(({ one, entries }) =>
    entries.filter((entry) => isOrphan(entry, known)).map((entry) => orphan(one.name, entry))
  );
}

/** `ids`: disks that the host is the destination of; null: it did not say. */
export function isOrphan(
  { id, state, problem, destination }: Pick<SourceEntry, "id" | "state" | "problem" | "destination">,
  known: readonly { readonly hostname: string; readonly ids: readonly string[] | null }[],
): boolean {
  // One without a destination was made by hand, for a ticket.
  if (problem !== null || state !== "exported" || destination === null) return false;
  const there = known.filter(({ hostname }) => hostname === destination.host);
  return there.length > 0 && there.every(({ ids }) => ids !== null && !ids.includes(id));
}

function orphan(name: string, { id, source, destination }: SourceEntry): HostFinding {
  return of(name, {
    check: "export",
    level: "stray",
    subject: id,
    message: `${source.path} is exported for ${id}, of which ${destination!.host} knows nothing (any more)`,
    remedy: `dlsm release ${id} on this host, if no other user's dlsm at ${destination!.host} needs it`,
    cleanable: false,
  });
}
