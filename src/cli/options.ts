/** Options that several commands share, and what their values mean. */
import { existsSync } from "node:fs";
import { UsageError } from "../lib/errors.ts";
import { parseDuration, parseRate, parseSize } from "../lib/units.ts";

export const jsonOption = {
  json: { type: "boolean", description: "Print one JSON object a line on stdout, everything else on stderr" },
} as const;

export const idArgument = {
  id: {
    type: "positional",
    required: true,
    description: "The migration, as dlsm status names it",
    valueHint: "ID",
  },
} as const;

export const detachOption = {
  detach: {
    type: "boolean",
    description: "Return as soon as the volume can be used; the rest goes on by itself",
  },
} as const;

/** What both `migrate` and `attach` can be told about the volume. */
export const volumeOptions = {
  handoff: {
    type: "enum",
    options: ["now", "manual"] as ("now" | "manual")[],
    description: "now: the source's user has stopped. manual: wait for dlsm activate",
  },
  activate: {
    type: "enum",
    options: ["explicit", "first-write"] as ("explicit" | "first-write")[],
    default: "explicit",
    description: "Before the hand-off a write waits for it (explicit), or is it (first-write)",
  },
  "block-size": {
    type: "string",
    default: "4KiB",
    valueHint: "SIZE",
    description: "Unit of tracking, 4KiB to 1MiB",
  },
  bwlimit: {
    type: "string",
    valueHint: "RATE",
    description: "Limit of the background sync, such as 100MiB/s",
  },
  "source-timeout": {
    type: "string",
    valueHint: "TIME",
    description:
      "A read that waits this long for an unreachable source fails (it waits for ever if not given)",
  },
  "hold-cutover": { type: "boolean", description: "Keep the engine in place until dlsm cutover" },
  force: {
    type: "boolean",
    description:
      "Overwrite a destination that is not empty; hand over although the source is open for writing",
  },
} as const;

export interface VolumeArguments {
  readonly handoff?: "now" | "manual";
  readonly activate: "explicit" | "first-write";
  readonly "block-size": string;
  readonly bwlimit?: string;
  readonly "source-timeout"?: string;
  readonly "hold-cutover"?: boolean;
  readonly force?: boolean;
}

/** The values of `volumeOptions`. Throws UsageError. */
export function readVolumeOptions(args: VolumeArguments) {
  return {
    handoff: args.handoff,
    activation: args.activate,
    blockBytes: parseBlockSize(args["block-size"]),
    bytesPerSecond: args.bwlimit === undefined ? null : parseRate(args.bwlimit),
    sourceTimeoutMs: args["source-timeout"] === undefined ? null : parseDuration(args["source-timeout"]),
    holdCutover: args["hold-cutover"] === true,
    force: args.force === true,
  };
}

/** A disk on this machine. Throws UsageError for one on another host. */
export function localPath(text: string): string {
  if (text === "") throw new UsageError("a disk's path is empty");
  if (!/^[^/]+:\//.test(text) || existsSync(text)) return text;
  throw new UsageError(`${text} is on another host, which this version cannot reach by itself`, {
    hint: "use dlsm export on the source's host and dlsm attach on the destination's",
  });
}

function parseBlockSize(text: string): number {
  const bytes = parseSize(text);
  if (bytes >= 4096 && bytes <= 1024 * 1024 && (bytes & (bytes - 1)) === 0) return bytes;
  throw new UsageError(`--block-size ${text}: it must be a power of two from 4KiB to 1MiB`);
}
