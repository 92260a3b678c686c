/** The steps of the state machine (machine.ts) done on the hosts; each can be repeated. */
import { FailedError, PreconditionError } from "../lib/errors.ts";
import type { DestinationEntry, Host, Replies } from "../role/mod.ts";
import type { Context } from "./context.ts";
import { handOff, runHandoffCommand } from "./hand-off.ts";
import { shareOf, type Step } from "./machine.ts";
import { requireSame, verify } from "./verify.ts";
import { destinationsOf, type View } from "./view.ts";

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
export async function settle(context: Context, { id, failback }: DestinationEntry): Promise<void> {
  const { source, destination } = context;
  const { of } = failback!;
  await source.ask("destination.retire", { id: of, as: id });
  await releaseAt(destination, of, context);
  await destination.ask("destination.setSettled", { id });
}

/**
 * Takes an export away, and says what of it could not be undone. True if all was: the disk is as it was before.
 */
export async function releaseAt(
  host: Host,
  id: string,
  { reporter }: Pick<Context, "reporter">,
): Promise<boolean> {
  const { note } = await host.ask("source.release", { id, force: true });
  if (note !== null) reporter.message("warn", `${id}: ${note}`);
  return note === null;
}

/**
 * Does one step of driving. `command`: the user's, for the step of that name. True if the disk's migration is over
 * then: nothing of it is left at the destination.
 */
export async function doStep(
  context: Context,
  view: View,
  { name, id }: Step,
  command: string | null = null,
): Promise<boolean> {
  const { source, destination } = context;
  switch (name) {
    case "command":
      if (command !== null) await runHandoffCommand(context, view, command);
      return false;
    case "handOff":
      await handOff(context, view, false);
      return false;
    case "fence":
      // The hand-off has happened: who can still write it is told as a danger.
      await source.ask("source.fence", { id, force: true });
      return false;
    case "startEngine":
      await destination.ask("destination.ensure", { id, export: null, force: false });
      return false;
    case "startExport": {
      const exported = await source.ask("source.ensure", { id, force: false });
      await destination.ask("destination.ensure", { id, export: exported, force: false });
      return false;
    }
    case "settle":
      await settle(context, destinationsOf(view).find((entry) => entry.id === id)!);
      return false;
    case "share":
      await share(context, destinationsOf(view).filter((entry) => entry.id === id), view);
      return false;
    case "verify": {
      requireSame(id, await verify(context, id));
      return false;
    }
    case "logOut":
      await destination.ask("destination.detachSource", { id });
      return false;
    case "release":
      await releaseAt(source, id, context);
      return false;
    case "noteReleased":
      await destination.ask("destination.setReleased", { id });
      return false;
    case "finish":
      return (await destination.ask("destination.finish", { id })).isDone;
    case "export":
    case "seed":
    case "attach":
      throw new FailedError(`${view.id} was not set up completely`, {
        hint: `dlsm resume ${view.id} does it over`,
      });
  }
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
