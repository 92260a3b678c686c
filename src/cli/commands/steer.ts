/** The commands that steer one migration. */
import { defineCommand } from "citty";
import { PreconditionError } from "../../lib/errors.ts";
import { formatSize, parseRate } from "../../lib/units.ts";
import * as migration from "../../migration/mod.ts";
import { detachOption, idArgument, idOf, jsonOption } from "../options.ts";
import { detach, follow, reporterFor, type Session, showStatus, withSession } from "../session.ts";

/** Does `work`, then shows where the migration stands. */
async function steer(
  args: { readonly id: string; readonly json?: boolean },
  work: (session: Session, id: string) => Promise<unknown>,
): Promise<void> {
  const reporter = reporterFor(args);
  const id = idOf(args);
  await withSession(reporter, async (session) => {
    await migration.knownDestination(session, id);
    await work(session, id);
    showStatus(reporter, await migration.statusById(session, id));
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
    ...jsonOption,
  },
  run: ({ args }) => steer(args, (session, id) => migration.activate(session, id, args.force === true)),
});

export const pause = defineCommand({
  meta: { name: "pause", description: "Pause the background sync; reads and writes go on" },
  args: { ...idArgument, ...jsonOption },
  run: ({ args }) => steer(args, ({ destination }, id) => destination.ask("destination.pause", { id })),
});

export const limit = defineCommand({
  meta: { name: "limit", description: "Limit the background sync" },
  args: {
    ...idArgument,
    rate: { type: "positional", required: true, description: "Such as 100MiB/s, or off" },
    ...jsonOption,
  },
  run: ({ args }) => {
    const bytesPerSecond = parseRate(args.rate);
    return steer(args, ({ destination }, id) => destination.ask("destination.limit", { id, bytesPerSecond }));
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
    ...jsonOption,
  },
  async run({ args }) {
    const reporter = reporterFor(args);
    const id = idOf(args);
    await withSession(reporter, async (session) => {
      const isDriven = await migration.resume(session, id, args.force === true);
      if (isDriven && !args.detach) return await follow(session, id);
      if (isDriven) detach(session, id);
      showStatus(reporter, await migration.statusById(session, id));
    });
  },
});

export const cutover = defineCommand({
  meta: { name: "cutover", description: "Let the engine leave: only the local disk remains" },
  args: {
    ...idArgument,
    force: { type: "boolean", description: "Disconnect the clients that still use the volume" },
    detach: { type: "boolean", description: "Do not wait for the end; it comes by itself" },
    ...jsonOption,
  },
  async run({ args }) {
    const reporter = reporterFor(args);
    const id = idOf(args);
    await withSession(reporter, async (session) => {
      await migration.allowCutover(session, id, args.force === true);
      const { engine } = await migration.knownDestination(session, id);
      if (engine !== null && engine.clients > 0 && args.force !== true) {
        throw new PreconditionError(`${id} is still used over ${engine.clients} NBD connection(s)`, {
          hint: "it is cut over when they are closed; --force disconnects them",
        });
      }
      if (args.detach) detach(session, id);
      else await follow(session, id);
    });
  },
});

export const abort = defineCommand({
  meta: { name: "abort", description: "Take everything away again; the source stays as it was" },
  args: {
    ...idArgument,
    force: { type: "boolean", description: "After the hand-off too: what was written here since is lost" },
    ...jsonOption,
  },
  async run({ args }) {
    const reporter = reporterFor(args);
    const id = idOf(args);
    await withSession(reporter, async (session) => {
      const status = await migration.statusById(session, id);
      await migration.abort(session, id, args.force === true);
      reporter.result({
        json: { ...status, phase: "aborted", disks: [] },
        lines: [`${id} aborted: ${status.source.path} is as it was`],
      });
    });
  },
});

export const verify = defineCommand({
  meta: { name: "verify", description: "Compare hashes of what was moved so far on both sides" },
  args: { ...idArgument, ...jsonOption },
  async run({ args }) {
    const reporter = reporterFor(args);
    const id = idOf(args);
    await withSession(reporter, async (session) => {
      const entry = await migration.knownDestination(session, id);
      if (entry.options.byTicket || entry.isReleased) {
        const why = entry.isReleased ? "its source was released" : "it was attached with a ticket";
        throw new PreconditionError(
          `${id} cannot be verified: ${why}, so the source's hashes cannot be had`,
        );
      }
      const verified = await migration.verify(session, id);
      migration.requireSame(id, verified);
      const { comparedBytes } = verified;
      reporter.result({
        json: { id: id, verifiedBytes: comparedBytes, result: "same" },
        lines: [`${id}: ${formatSize(comparedBytes)} compared, no difference`],
      });
    });
  },
});
