import { defineCommand } from "citty";
import { UsageError } from "../../lib/errors.ts";
import { newId, planMigration, setUp } from "../../migration/mod.ts";
import { maxDisks } from "../../role/mod.ts";
import {
  detachOption,
  type DiskPlace,
  jsonOption,
  parseDiskPlace,
  parsePortal,
  readVolumeOptions,
  repeated,
  volumeOptions,
} from "../options.ts";
import { forgetIfGone, goOn, reporterFor, withSession } from "../session.ts";

export const migrate = defineCommand({
  meta: { name: "migrate", description: "Move a disk: usable at the destination at once, its data follows" },
  args: {
    source: {
      type: "positional",
      required: false,
      description: "The disk that moves, [[USER@]HOST:]PATH: a raw image or a block device",
    },
    destination: {
      type: "positional",
      required: false,
      description: "Where it goes, [[USER@]HOST:]PATH: a new file, or a block device that is large enough",
    },
    disk: {
      type: "string",
      valueHint: "SRC=DST",
      description:
        "One of several disks that move together (give it for each), instead of SOURCE DESTINATION",
    },
    ...volumeOptions,
    "handoff-command": {
      type: "string",
      valueHint: "CMD",
      description:
        "Run CMD (by sh, here, with DLSM_NBD_URI set) to move who uses the disk; hand over if it ends well",
    },
    portal: {
      type: "string",
      valueHint: "IP[:PORT]",
      description:
        "The source's address for the data (its address on the route to the destination if not given)",
    },
    tunnel: {
      type: "boolean",
      description: "Send the data through ssh from the destination to the source; nothing else is opened",
    },
    verify: {
      type: "boolean",
      description: "At the end compare hashes of both sides' copies of what was moved",
    },
    "keep-source": {
      type: "boolean",
      description: "Keep source and volume when all is here, until dlsm cutover: dlsm failback can go back",
    },
    deploy: {
      type: "boolean",
      description: "Copy this dlsm to the other hosts over ssh (~/.cache/dlsm/bin there) and use it",
    },
    ...detachOption,
    ...jsonOption,
  },
  async run({ args, rawArgs }) {
    const reporter = reporterFor(args);
    const options = readVolumeOptions(args);
    const handoffCommand = args["handoff-command"] ?? null;
    if (handoffCommand !== null && options.handoff !== undefined) {
      throw new UsageError("--handoff and --handoff-command exclude each other", {
        hint: "leave --handoff out: the disk is handed over when the command has ended well",
      });
    }
    const { sourceReach, destinationReach, disks } = readDisks(args, repeated(rawArgs, "--disk"));
    const id = newId();
    const request = {
      ...options,
      id,
      disks,
      isByCommand: handoffCommand !== null,
      portal: args.portal === undefined ? null : parsePortal(args.portal),
      tunnel: args.tunnel === true,
      verify: args.verify === true,
      keepSource: args["keep-source"] === true,
    };
    await withSession(reporter, { deploy: args.deploy === true }, async (session) => {
      const { hosts } = session;
      const source = hosts.at(sourceReach);
      const context = { ...session, source, destination: hosts.at(destinationReach) };
      const isElsewhere = sourceReach !== null || destinationReach !== null;
      if (isElsewhere) await Promise.all([source.facts(), context.destination.facts()]);
      if (isElsewhere || handoffCommand !== null) {
        hosts.book.add(id, { source: sourceReach, destination: destinationReach, handoffCommand });
      }
      try {
        await planMigration(context, request);
        await setUp(context, id);
      } catch (error) {
        await forgetIfGone(context, id);
        throw error;
      }
      await goOn(context, id, { force: options.force, detach: args.detach === true });
    });
  },
});

/** SOURCE DESTINATION, or --disk SRC=DST …; all on the same two hosts. Throws UsageError. */
function readDisks(
  { source, destination }: { readonly source?: string; readonly destination?: string },
  pairs: readonly string[],
) {
  const places = pairs.length > 0 ? pairs.map(parsePair) : [parsePlaces(source, destination)];
  if (pairs.length > 0 && source !== undefined) {
    throw new UsageError("SOURCE and DESTINATION beside --disk", {
      hint: "give every disk with --disk SRC=DST, or one disk without it",
    });
  }
  if (places.length > maxDisks) throw new UsageError(`more than ${maxDisks} disks in one migration`);
  const [first] = places;
  const isElsewhere = places.some(({ from, to }) =>
    from.reach !== first.from.reach || to.reach !== first.to.reach
  );
  if (isElsewhere) {
    throw new UsageError("the disks of one migration are on more than two hosts", {
      hint: "start a migration for each pair of hosts",
    });
  }
  return {
    sourceReach: first.from.reach,
    destinationReach: first.to.reach,
    disks: places.map(({ from, to }) => ({ source: from.path, destination: to.path })),
  };
}

function parsePair(text: string): { from: DiskPlace; to: DiskPlace } {
  const at = text.indexOf("=");
  if (at < 1 || at === text.length - 1) {
    throw new UsageError(`--disk: ${text} is not SRC=DST`, {
      hint: "such as --disk node1:/dev/vg0/db=node2:/dev/vg1/db",
    });
  }
  return parsePlaces(text.slice(0, at), text.slice(at + 1));
}

function parsePlaces(source: string | undefined, destination: string | undefined) {
  if (source === undefined || destination === undefined) {
    const missing = source === undefined ? "SOURCE" : "DESTINATION";
    throw new UsageError(`dlsm migrate: ${missing} is missing`, { hint: "see dlsm migrate --help" });
  }
  return { from: parseDiskPlace(source), to: parseDiskPlace(destination) };
}
