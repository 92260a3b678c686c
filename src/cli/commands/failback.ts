import { defineCommand } from "citty";
import * as migration from "../../migration/mod.ts";
import {
  detachOption,
  hostOption,
  idArgument,
  idOf,
  jsonOption,
  parseHosts,
  parsePortal,
  repeated,
} from "../options.ts";
import { forgetIfGone, goOn, reporterFor, withMigration } from "../session.ts";

export const failback = defineCommand({
  meta: {
    name: "failback",
    description: "Go back to the source: only what was written since crosses the network",
  },
  args: {
    ...idArgument,
    force: { type: "boolean", description: "Disconnect the clients that still use the volume" },
    portal: {
      type: "string",
      valueHint: "IP[:PORT]",
      description: "The address for the data of the host that the disk leaves now (chosen as for migrate)",
    },
    tunnel: {
      type: "boolean",
      description: "Send the data through ssh, from the old source to the host that the disk leaves now",
    },
    ...detachOption,
    ...hostOption,
    ...jsonOption,
  },
  async run({ args, rawArgs }) {
    const id = idOf(args);
    const portal = args.portal === undefined ? null : parsePortal(args.portal);
    const named = parseHosts(repeated(rawArgs, "--host"));
    await withMigration(reporterFor(args), id, named, async (context) => {
      const { source, destination, hosts, reporter } = context;
      const back = { ...context, source: destination, destination: source };
      const isElsewhere = source.reach !== null || destination.reach !== null;
      const begin = (backId: string) => {
        if (isElsewhere) {
          hosts.book.add(backId, {
            source: destination.reach,
            destination: source.reach,
            handoffCommand: null,
          });
        }
        reporter.message("info", `${id} goes back as ${backId}`);
      };
      let known: string | undefined;
      const request = { force: args.force === true, portal, tunnel: args.tunnel === true };
      try {
        await migration.failback(context, id, { ...request, begin: (backId) => begin(known = backId) });
      } catch (error) {
        if (known !== undefined) await forgetIfGone(back, known);
        throw error;
      }
      hosts.book.remove(id);
      await goOn(back, known!, { force: false, detach: args.detach === true });
    });
  },
});
