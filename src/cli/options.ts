/** Options that several commands share, and what their values mean. */
import { existsSync } from "node:fs";
import { isIP } from "node:net";
import { UsageError } from "../lib/errors.ts";
import { parseDuration, parseRate, parseSize } from "../lib/units.ts";
import { isMigrationId } from "../role/mod.ts";
import { checkDestination } from "../ssh/mod.ts";

export const jsonOption = {
  json: { type: "boolean", description: "Print one JSON object a line on stdout, everything else on stderr" },
} as const;

export const idArgument = {
  id: {
    type: "positional",
    required: true,
    description: "The migration, as dlsm status names it",
  },
} as const;

/** Where to look for a migration that neither this machine nor its address book knows. */
export const hostOption = {
  host: {
    type: "string",
    valueHint: "HOST",
    description: "Look on this host too, as ssh names it; may be given more than once",
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
    description:
      "now (the default of migrate): the source is not in use, as is checked. manual (of attach): wait for dlsm activate",
  },
  activate: {
    type: "enum",
    options: ["explicit", "first-write"] as ("explicit" | "first-write")[],
    default: "explicit",
    description:
      "A write before the hand-off waits for dlsm activate (explicit), or is the hand-off (first-write)",
  },
  "block-size": {
    type: "string",
    default: "4KiB",
    valueHint: "SIZE",
    description: "Unit in which blocks are tracked: a power of two from 4KiB to 1MiB",
  },
  bwlimit: {
    type: "string",
    valueHint: "RATE",
    description: "At most this fast in the background, such as 100MiB/s (no limit if not given)",
  },
  "source-timeout": {
    type: "string",
    valueHint: "TIME",
    description:
      "Fail a read that waits this long, such as 5m, for a source out of reach (it waits for ever if not given)",
  },
  "hold-cutover": {
    type: "boolean",
    description: "When all is here, go on serving the volume until dlsm cutover",
  },
  force: {
    type: "boolean",
    description:
      "Overwrite what is not empty, begin where space is short; hand over although the source can still be written",
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
    bytesPerSecond: readFlag("--bwlimit", args.bwlimit, parseRate),
    sourceTimeoutMs: readFlag("--source-timeout", args["source-timeout"], parseDuration),
    holdCutover: args["hold-cutover"] === true,
    force: args.force === true,
  };
}

/** The id that a command was given. Throws UsageError for what cannot be one. */
export function idOf({ id }: { readonly id: string }): string {
  if (isMigrationId(id)) return id;
  throw new UsageError(`${JSON.stringify(id)} is not the id of a migration`, {
    hint: "an id is made of 4 to 16 small letters and digits; dlsm status lists those on this machine",
  });
}

/** A disk, wherever it is. */
export interface DiskPlace {
  /** How ssh reaches its host; null: this machine. */
  readonly reach: string | null;
  readonly path: string;
}

/**
 * `[USER@]HOST:/PATH`, as for scp, an IPv6 address in brackets; or a path on this machine. Throws UsageError.
 */
export function parseDiskPlace(text: string): DiskPlace {
  if (text === "") throw new UsageError("a disk's path is empty", { hint: "name a file or a block device" });
  const match = /^([^/:[\]]+|(?:[^/:@[\]]+@)?\[[^/[\]]+\]):(.*)$/s.exec(text);
  if (match === null || existsSync(text)) return { reach: null, path: text };
  const [, host, path] = match;
  if (!path.startsWith("/")) {
    throw new UsageError(`${text}: a path on another host has to begin with /`, {
      hint: `write ${host}:/PATH (a file of that name here is ./${text})`,
    });
  }
  const reach = withoutBrackets(host);
  checkDestination(reach);
  return { reach, path };
}

/** A disk on this machine. Throws UsageError for one on another host. */
export function localPath(text: string): string {
  const { reach, path } = parseDiskPlace(text);
  if (reach === null) return path;
  throw new UsageError(`${text} is on another host: this command works on the host's own disks`, {
    hint: `run it there (ssh ${reach}), or move the disk with dlsm migrate`,
  });
}

/** `root@[fd00::1]`, as it has to be written before a path, is `root@fd00::1` for ssh. */
export function withoutBrackets(host: string): string {
  return host.replace(/\[(.*)\]/, "$1");
}

/** Hosts as `--host` names them. Throws UsageError. */
export function parseHosts(texts: readonly string[]): string[] {
  const hosts = texts.map(withoutBrackets);
  for (const host of hosts) checkDestination(host);
  return hosts;
}

/** All values of a flag that can be given more than once. */
export function repeated(rawArgs: readonly string[], flag: string): string[] {
  return rawArgs.flatMap((word, index) => {
    if (word === flag) return rawArgs.slice(index + 1, index + 2);
    return word.startsWith(`${flag}=`) ? [word.slice(flag.length + 1)] : [];
  });
}

/** The value of `--portal`: one IP address, and the port (0: any that is free). Throws UsageError. */
export function parsePortal(text: string): { address: string; port: number } {
  const match = /^\[(?<six>[^\]]+)\](?::(?<sixPort>\d+))?$|^(?<four>[^:]+)(?::(?<port>\d+))?$/.exec(text);
  const groups = match?.groups ?? {};
  const address = groups.six ?? groups.four ?? text;
  const port = Number(groups.sixPort ?? groups.port ?? 0);
  checkNotLinkLocal("--portal", address);
  const isWildcard = /^[0:.]+$/.test(address);
  if (isIP(address) !== 0 && !isWildcard && port <= 65535) return { address, port };
  throw new UsageError(
    isWildcard
      ? `--portal: ${text} would listen on all addresses`
      : `--portal: ${text} is not an IP address with a port from 0 to 65535`,
    { hint: "give one IP address of this host, such as 192.0.2.7 or 192.0.2.7:3260 or [2001:db8::7]:3260" },
  );
}

/** Throws UsageError for an IPv6 address that says nothing without the interface it is on. */
export function checkNotLinkLocal(flag: string, address: string): void {
  if (isIP(address) !== 6 || !/^fe[89ab].:|%/i.test(address)) return;
  throw new UsageError(`${flag}: ${address} is a link-local address, and those cannot be used`, {
    hint: "give another address of that host: a global one, a unique local one (fd00::/8), or IPv4",
  });
}

/** A flag's value, null if it was not given; an error names the flag. */
function readFlag<T>(flag: string, text: string | undefined, parse: (text: string) => T): T | null {
  if (text === undefined) return null;
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    throw new UsageError(`${flag}: ${error.message}`, { hint: error.hint, cause: error });
  }
}

function parseBlockSize(text: string): number {
  const bytes = readFlag("--block-size", text, parseSize)!;
  if (bytes >= 4096 && bytes <= 1024 * 1024 && (bytes & (bytes - 1)) === 0) return bytes;
  throw new UsageError(`--block-size: ${text} is not a power of two from 4KiB to 1MiB`, {
    hint: "leave it out, or write 4KiB, 64KiB, 1MiB or one between them",
  });
}
