/** Commands that dlsm gives itself: the engine's process, and the driver in the background. */
import { defineCommand } from "citty";
import { InterruptedError } from "../../lib/errors.ts";
import { jsonOption } from "../options.ts";
import { drive as driveMigration, reporterFor, withSession } from "../session.ts";
import { runEngine } from "../../engine/mod.ts";

export const engine = defineCommand({
  meta: { name: "engine", description: "Serve one volume (started by the destination role)", hidden: true },
  args: {
    state: { type: "positional", required: true, description: "State folder of the volume" },
    run: { type: "positional", required: true, description: "Run folder of the volume" },
    new: { type: "boolean", description: "Make its residency map" },
    ...jsonOption,
  },
  run: ({ args }) => runEngine({ state: args.state, run: args.run }, args.new === true),
});

export const drive = defineCommand({
  meta: { name: "drive", description: "Drive a migration to its end (started by --detach)", hidden: true },
  args: { id: { type: "positional", required: true, description: "The migration" } },
  async run({ args }) {
    await withSession(reporterFor({}), async (session) => {
      try {
        await driveMigration(session, args.id);
      } catch (error) {
        if (!session.signal.aborted) throw error;
        throw new InterruptedError(`stopped; dlsm resume ${args.id} goes on`, { cause: error });
      }
    });
  },
});
