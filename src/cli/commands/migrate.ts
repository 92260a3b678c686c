import { defineCommand } from "citty";
import { UsageError } from "../../lib/errors.ts";
import { planMigration, setUp } from "../../migration/mod.ts";
import { detachOption, jsonOption, localPath, readVolumeOptions, volumeOptions } from "../options.ts";
import { goOn, reporterFor, withSession } from "../session.ts";

export const migrate = defineCommand({
  meta: { name: "migrate", description: "Move a disk: usable at the destination at once, its data follows" },
  args: {
    source: {
      type: "positional",
      required: true,
      description: "The disk that moves: a raw image or a block device",
    },
    destination: {
      type: "positional",
      required: true,
      description: "Where it goes: a new file, or a block device that is large enough",
    },
    ...volumeOptions,
    "handoff-command": {
      type: "string",
      valueHint: "CMD",
      description:
        "Run CMD (by sh, with DLSM_NBD_URI set) to move who uses the disk; hand over if it ends well",
    },
    verify: {
      type: "boolean",
      description: "At the end compare hashes of both sides' copies of what was moved",
    },
    ...detachOption,
    ...jsonOption,
  },
  async run({ args }) {
    const reporter = reporterFor(args);
    const options = readVolumeOptions(args);
    const handoffCommand = args["handoff-command"] ?? null;
    if (handoffCommand !== null && options.handoff !== undefined) {
      throw new UsageError("--handoff and --handoff-command exclude each other", {
        hint: "leave --handoff out: the disk is handed over when the command has ended well",
      });
    }
    const request = {
      ...options,
      source: localPath(args.source),
      destination: localPath(args.destination),
      handoffCommand,
      verify: args.verify === true,
    };
    await withSession(reporter, async (session) => {
      const id = await planMigration(session, request);
      const entry = await setUp(session, id);
      await goOn(session, entry, { force: options.force, detach: args.detach === true });
    });
  },
});
