import { defineCommand } from "citty";
import { UsageError } from "../../lib/errors.ts";
import { handOff, planMigration, setUp, statusById } from "../../migration/mod.ts";
import { detachOption, jsonOption, localPath, readVolumeOptions, volumeOptions } from "../options.ts";
import { detach, follow, reporterFor, showStatus, withSession } from "../session.ts";

export const migrate = defineCommand({
  meta: { name: "migrate", description: "Move a disk: usable at the destination at once, its data follows" },
  args: {
    source: {
      type: "positional",
      required: true,
      valueHint: "SOURCE",
      description: "A raw disk image or block device",
    },
    destination: {
      type: "positional",
      required: true,
      valueHint: "DESTINATION",
      description: "Where it goes",
    },
    ...volumeOptions,
    "handoff-command": {
      type: "string",
      valueHint: "CMD",
      description:
        "Run CMD (by sh, with DLSM_NBD_URI set) to move the disk's user; hand over if it ends well",
    },
    verify: { type: "boolean", description: "At the end compare hashes of what was moved on both sides" },
    ...detachOption,
    ...jsonOption,
  },
  async run({ args }) {
    const reporter = reporterFor(args);
    const options = readVolumeOptions(args);
    const handoffCommand = args["handoff-command"] ?? null;
    if (handoffCommand !== null && options.handoff !== undefined) {
      throw new UsageError("--handoff and --handoff-command exclude each other");
    }
    await withSession(reporter, async (session) => {
      const id = await planMigration(session, {
        ...options,
        source: localPath(args.source),
        destination: localPath(args.destination),
        handoffCommand,
        verify: args.verify === true,
      });
      const entry = await setUp(session, id);
      const isHandedOver = await handOff(session, entry, options.force);
      const status = await statusById(session, id);
      if (args.detach) {
        detach(session, id);
        showStatus(reporter, status);
        return;
      }
      reporter.message("info", `${id}: the disk can be used at ${status.disks[0].nbdUri}`);
      if (!isHandedOver) {
        reporter.message("info", `when its user has stopped on the source: dlsm activate ${id}`);
      }
      await follow(session, id);
    });
  },
});
