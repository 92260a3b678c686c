/** Commands that dlsm gives itself: the engine's process, and the driver in the background. */
import { defineCommand } from "citty";
import { InterruptedError } from "../../lib/errors.ts";
import { Driver } from "../../migration/mod.ts";
import { jsonOption } from "../options.ts";
import { reporterFor, withMigration } from "../session.ts";
import { runEngine } from "../../engine/mod.ts";
import { runFolder, stateFolder } from "../../lib/paths.ts";
import { serveRoles } from "../../role/mod.ts";
import { joinStreams } from "../../rpc/mod.ts";

const exitDelayMs = 500;

export const engine = defineCommand({
  meta: { name: "engine", description: "Serve one volume (started by the destination role)", hidden: true },
  args: {
    state: { type: "positional", required: true, description: "State folder of the volume" },
    run: { type: "positional", required: true, description: "Run folder of the volume" },
    new: { type: "boolean", description: "Make its residency map" },
    force: { type: "boolean", description: "Go on without the live map of an engine that was killed" },
    ...jsonOption,
  },
  async run({ args }) {
    const how = { isNew: args.new === true, mayLoseUnflushed: args.force === true };
    try {
      await runEngine({ state: args.state, run: args.run }, how);
    } finally {
      // Whatever is still open: an engine that does not serve must not look as if it did.
      setTimeout(() => process.exit(), exitDelayMs).unref();
    }
  },
});

export const drive = defineCommand({
  meta: { name: "drive", description: "Drive a migration to its end (started by --detach)", hidden: true },
  args: { id: { type: "positional", required: true, description: "The migration" } },
  async run({ args }) {
    await withMigration(reporterFor({}), args.id, [], async (context) => {
      try {
        await new Driver(context, args.id, { handoffCommand: null, isBackground: true }).run();
      } catch (error) {
        if (!context.signal.aborted) throw error;
        throw new InterruptedError(`stopped; dlsm resume ${args.id} goes on`, { cause: error });
      }
    });
  },
});

export const role = defineCommand({
  meta: {
    name: "role",
    description: "Answer another host's dlsm on stdin and stdout (started over ssh)",
    hidden: true,
  },
  async run() {
    const folders = { state: stateFolder(), run: runFolder() };
    // What is under way ends in good order, whatever becomes of the connection: who asked is seen to be gone
    // by the end of stdin, and nobody may be there any more to read what is logged.
    process.on("SIGHUP", () => {});
    process.stderr.on("error", () => {});
    await serveRoles(folders, joinStreams(process.stdin, process.stdout));
    // Whatever is still open: nobody is there any more.
    process.exit();
  },
});
