/** The steps of the state machine (machine.ts) done on the hosts; each can be repeated. */
import { execa } from "execa";
import { FailedError, messageOf, PreconditionError } from "../lib/errors.ts";
import { type DestinationEntry, type Host, migrationOf, type Replies } from "../role/mod.ts";
import type { Context } from "./context.ts";
import { shareOf, type Step } from "./machine.ts";
import { nbdUriOf } from "./status.ts";
import { requireSame, verify } from "./verify.ts";
import { destinationsOf, phaseOf, type View } from "./view.ts";

const probeTimeoutMs = 5_000;

/** Sets one disk up one step further. */
export async function doSetUpStep(context: Context, view: View, { name, id }: Step): Promise<void> {
  const { source, destination } = context;
  const disk = view.disks.find((each) => each.id === id)!;
  const { network, source: from, destination: to } = disk.destination!;
  if (name === "export") {
    const isNew = disk.source === undefined || disk.source.state === "releasing";
    if (!isNew) await source.ask("source.ensure", { id, force: false });
    else await source.ask("source.export", { id, path: from.path, ...network, destination: to });
    return;
  }
  if (name === "seed") return await seed(context, disk.destination!);
  const exported = await source.ask("source.ensure", { id, force: false });
  if (network.tunnel === null) await requirePortal(destination, to.host, exported);
  await destination.ask("destination.attach", { id, export: exported });
}

/** Tells the destination what it has already: all that was not written since the disk left. */
async function seed({ source, destination }: Context, entry: DestinationEntry): Promise<void> {
  const { of } = entry.failback!;
  for (let from = 0; from < entry.sizeBytes;) {
    const { extents, to } = await source.ask("destination.written", { id: of, as: entry.id, from });
    await destination.ask("destination.seed", { id: entry.id, from, to, extents: [...extents] });
    from = to;
  }
}

/** The old migration of a disk that went back: its records go on both hosts, the disks stay. */
export async function settle(
  { source, destination }: Context,
  { id, failback }: DestinationEntry,
): Promise<void> {
  const { of } = failback!;
  await source.ask("destination.retire", { id: of, as: id });
  await destination.ask("source.release", { id: of, force: true });
  await destination.ask("destination.setSettled", { id });
}

/** What a step of driving came to, where that is of interest. */
export interface Done {
  /** The disk's migration is over: nothing of it is left at the destination. */
  readonly isFinished?: boolean;
  readonly comparedBytes?: number;
}

/** Does one step of driving. */
export async function doStep(context: Context, view: View, { name, id }: Step): Promise<Done> {
  const { source, destination } = context;
  switch (name) {
    case "command":
      await runHandoffCommand(context, view);
      await handOff(context, view, false);
      return {};
    case "handOff":
      await handOff(context, view, false);
      return {};
    case "fence":
      // The hand-off has happened: who can still write it is told as a danger.
      await source.ask("source.fence", { id, force: true });
      return {};
    case "startEngine":
      await destination.ask("destination.ensure", { id, export: null, force: false });
      return {};
    case "startExport": {
      const exported = await source.ask("source.ensure", { id, force: false });
      await destination.ask("destination.ensure", { id, export: exported, force: false });
      return {};
    }
    case "settle":
      await settle(context, destinationsOf(view).find((entry) => entry.id === id)!);
      return {};
    case "share":
      await share(context, destinationsOf(view).filter((entry) => entry.id === id), view);
      return {};
    case "verify": {
      const verified = await verify(context, id);
      requireSame(id, verified);
      return { comparedBytes: verified.comparedBytes };
    }
    case "logOut":
      await destination.ask("destination.detachSource", { id });
      return {};
    case "release":
      await source.ask("source.release", { id, force: true });
      return {};
    case "noteReleased":
      await destination.ask("destination.setReleased", { id });
      return {};
    case "finish":
      return { isFinished: (await destination.ask("destination.finish", { id })).isDone };
    case "export":
    case "seed":
    case "attach":
      throw new FailedError(`${view.id} was not set up completely`, {
        hint: `dlsm resume ${view.id} does it over`,
      });
  }
}

/**
 * The hand-off of all disks. Each source is fenced first: refused while somebody can still write one of them
 * (then the fences are undone), unless forced. From the first volume that is activated it can only go forward.
 */
export async function handOff(context: Context, view: View, isForced: boolean): Promise<void> {
  const entries = destinationsOf(view);
  const waiting = entries.filter((entry) => phaseOf(entry) === "attached");
  const isFirst = waiting.length === entries.length;
  const fenced: string[] = [];
  try {
    for (const { id, options } of waiting) {
      if (options.byTicket) continue;
      fenced.push(id);
      await context.source.ask("source.fence", { id, force: isForced });
    }
    for (const { failback } of waiting) await requireUnchanged(context, failback?.of);
  } catch (error) {
    if (isFirst) await unfence(context, fenced);
    throw error;
  }
  for (const { id } of waiting) await context.destination.ask("destination.activate", { id });
}

/** Sets each of these disks' share of the limit. */
export async function share(
  { destination }: Context,
  entries: readonly DestinationEntry[],
  view: View,
): Promise<void> {
  const bytesPerSecond = shareOf(destinationsOf(view));
  for (const { id, totalBytesPerSecond } of entries) {
    await destination.ask("destination.limit", { id, bytesPerSecond, totalBytesPerSecond });
  }
}

/** Of the disk that goes back only what was written comes again: the rest must be as it was left. */
async function requireUnchanged({ destination }: Context, of: string | undefined): Promise<void> {
  const change = of === undefined ? null : await destination.ask("source.changed", { id: of });
  if (change === null) return;
  throw new PreconditionError(`the disk cannot go back to what it was: ${change}`, {
    hint: `stay with dlsm resume ${migrationOf(of!)}, or move the whole disk there with a new migration`,
  });
}

async function unfence({ source, reporter }: Context, ids: readonly string[]): Promise<void> {
  for (const id of ids) {
    try {
      await source.ask("source.unfence", { id });
    } catch (error) {
      reporter.message("warn", `the source of ${id} may still be read-only: ${messageOf(error)}`);
    }
  }
}

/** A portal that cannot be reached is told from one that refuses the login. */
async function requirePortal(
  destination: Host,
  hostName: string,
  { address, port }: Replies["source.export"],
): Promise<void> {
  const { problem } = await destination.ask("host.probe", { address, port, timeoutMs: probeTimeoutMs });
  if (problem === null) return;
  throw new PreconditionError(
    `${hostName} cannot reach the source's portal, ${address} port ${port}: ${problem}`,
    {
      hint:
        "open that in the firewall (--portal IP:PORT names the port), name an address of the source that " +
        "the destination can reach with --portal, or send the data through ssh with --tunnel",
    },
  );
}

async function runHandoffCommand(context: Context, view: View): Promise<void> {
  const { id } = view;
  const entries = destinationsOf(view);
  const [first] = entries;
  const command = first.options.handoffCommand ?? "true";
  context.reporter.message("info", `running the hand-off command: ${command}`);
  const { exitCode, signal, failed } = await execa("/bin/sh", ["-c", command], {
    reject: false,
    stdin: "ignore",
    // Its output is for the log; stdout may carry the command's JSON.
    stdout: 2 as never,
    stderr: 2 as never,
    env: {
      DLSM_ID: id,
      DLSM_NBD_SOCKET: first.nbdSocket,
      DLSM_NBD_URI: nbdUriOf(first.nbdSocket),
      DLSM_SOURCE: first.source.path,
      DLSM_SOURCE_HOST: first.source.host,
      DLSM_DESTINATION: first.destination.path,
      DLSM_DESTINATION_HOST: first.destination.host,
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
