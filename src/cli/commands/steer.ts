/** The commands that steer one migration. */
import { defineCommand } from "citty";
import { PreconditionError } from "../../lib/errors.ts";
import { formatSize, parseRate } from "../../lib/units.ts";
import * as migration from "../../migration/mod.ts";
import { detachOption, hostOption, idArgument, idOf, jsonOption, parseHosts, repeated } from "../options.ts";
import { detach, follow, reporterFor, type Session, showStatus, withMigration } from "../session.ts";

interface Given {
  readonly args: { readonly id: string; readonly json?: boolean };
  readonly rawArgs: readonly string[];
}

type Work = (context: Session & migration.Context, id: string) => Promise<unknown>;

/** Finds the migration's hosts and does `work`. */
async function withGiven({ args, rawArgs }: Given, work: Work): Promise<void> {
  const id = idOf(args);
  const hosts = parseHosts(repeated(rawArgs, "--host"));
  await withMigration(reporterFor(args), id, hosts, (context) => work(context, id));
}

/** Does `work`, then shows where the migration stands. */
function steer(given: Given, work: Work): Promise<void> {
  return withGiven(given, async (context, id) => {
    await migration.knownDestinations(context, id);
    await work(context, id);
    showStatus(context.reporter, await migration.statusById(context, id));
  });
}

export const activate = defineCommand({
  meta: {
    name: "activate",
    description: "The hand-off: the disk's user has stopped on the source and goes on here",
  },
  args: {
    ...idArgument,
    force: { type: "boolean", description: "Although the source is still open for writing" },
    ...hostOption,
    ...jsonOption,
  },
  run: (given) => steer(given, (context, id) => migration.activate(context, id, given.args.force === true)),
});

export const pause = defineCommand({
  meta: { name: "pause", description: "Pause the background sync; reads and writes go on" },
  args: { ...idArgument, ...hostOption, ...jsonOption },
  run: (given) => steer(given, (context, id) => migration.askAll(context, id, "destination.pause")),
});

export const limit = defineCommand({
  meta: { name: "limit", description: "Limit the background sync (of all disks together)" },
  args: {
    ...idArgument,
    rate: { type: "positional", required: true, description: "Such as 100MiB/s, or off" },
    ...hostOption,
    ...jsonOption,
  },
  run: (given) => {
    const bytesPerSecond = parseRate(given.args.rate);
    return steer(given, (context, id) => migration.limit(context, id, bytesPerSecond));
  },
});

export const resume = defineCommand({
  meta: { name: "resume", description: "Go on: after a pause, an error that was mended, a crash, a reboot" },
  args: {
    ...idArgument,
    force: {
      type: "boolean",
      description: "After a reboot or without the live map: go on with what is there (what it says it risks)",
    },
    ...detachOption,
    ...hostOption,
    ...jsonOption,
  },
  run: (given) =>
    withGiven(given, async (context, id) => {
      const { args } = given;
      const { disks } = await migration.observe(context, id);
      const ended = disks.length === 0 ? await migration.findEnded(context.hosts, id) : undefined;
      if (ended !== undefined) return showStatus(context.reporter, ended);
      const isDriven = await migration.resume(context, id, args.force === true);
      if (isDriven && !args.detach) return await follow(context, id);
      if (isDriven) await detach(context, id);
      showStatus(context.reporter, await migration.statusById(context, id));
    }),
});

export const cutover = defineCommand({
  meta: { name: "cutover", description: "Let the engine leave: only the local disk remains" },
  args: {
    ...idArgument,
    force: { type: "boolean", description: "Disconnect the clients that still use the volume" },
    detach: { type: "boolean", description: "Do not wait for the end; it comes by itself" },
    ...hostOption,
    ...jsonOption,
  },
  run: (given) =>
    withGiven(given, async (context, id) => {
      const { args } = given;
      await migration.allowCutover(context, id, args.force === true);
      const entries = await migration.knownDestinations(context, id);
      const clients = entries.reduce((sum, { engine }) => sum + (engine?.clients ?? 0), 0);
      if (clients > 0 && args.force !== true) {
        throw new PreconditionError(`${id} is still used over ${clients} NBD connection(s)`, {
          hint: "it is cut over when they are closed; --force disconnects them",
        });
      }
      if (args.detach) await detach(context, id);
      else await follow(context, id);
    }),
});

export const abort = defineCommand({
  meta: { name: "abort", description: "Take everything away again; the source stays as it was" },
  args: {
    ...idArgument,
    force: { type: "boolean", description: "After the hand-off too: what was written here since is lost" },
    ...hostOption,
    ...jsonOption,
  },
  run: (given) =>
    withGiven(given, async (context, id) => {
      const status = await migration.statusById(context, id);
      const isAsBefore = await migration.abort(context, id, given.args.force === true);
      const rest = isAsBefore ? "is as it was" : "may not be writable as it was, see the warning";
      context.hosts.book.remove(id);
      context.reporter.result({
        json: { ...status, phase: "aborted", disks: [] },
        lines: [`${id} aborted: ${status.source.path || "the source"} ${rest}`],
      });
    }),
});

export const verify = defineCommand({
  meta: { name: "verify", description: "Compare hashes of what was moved so far on both sides" },
  args: { ...idArgument, ...hostOption, ...jsonOption },
  run: (given) =>
    withGiven(given, async (context, id) => {
      const entries = await migration.knownDestinations(context, id);
      let comparedBytes = 0;
      for (const entry of entries) {
        if (entry.options.byTicket || entry.isReleased) {
          const why = entry.isReleased ? "its source was released" : "it was attached with a ticket";
          throw new PreconditionError(
            `${id} cannot be verified: ${why}, so the source's hashes cannot be had`,
          );
        }
        if (entry.failback?.isWhole === false) {
          throw new PreconditionError(
            `${id} cannot be verified: what the disk came back from never had all of its data`,
          );
        }
        const verified = await migration.verify(context, entry.id);
        migration.requireSame(entry.id, verified);
        comparedBytes += verified.comparedBytes;
      }
      context.reporter.result({
        json: { id, verifiedBytes: comparedBytes, result: "same" },
        lines: [`${id}: ${formatSize(comparedBytes)} compared, no difference`],
      });
    }),
});
