/** The two roles by hand: export, attach, release. */
import { readFileSync, writeFileSync } from "node:fs";
import { isIP } from "node:net";
import { defineCommand } from "citty";
import { messageOf, PreconditionError, UsageError } from "../../lib/errors.ts";
import { attachByTicket, exportByHand, handOff, statusById } from "../../migration/mod.ts";
import { decodeTicket } from "../../role/mod.ts";
import {
  detachOption,
  idArgument,
  jsonOption,
  localPath,
  readVolumeOptions,
  volumeOptions,
} from "../options.ts";
import { detach, follow, reporterFor, showStatus, withSession } from "../session.ts";

export const exportCommand = defineCommand({
  meta: { name: "export", description: "Export a disk by hand; prints a ticket for dlsm attach (a secret)" },
  args: {
    disk: {
      type: "positional",
      required: true,
      valueHint: "DISK",
      description: "A raw disk image or block device",
    },
    allow: {
      type: "string",
      required: true,
      valueHint: "ADDRESS",
      description: "The destination's IP address",
    },
    portal: {
      type: "string",
      default: "127.0.0.1",
      valueHint: "IP[:PORT]",
      description: "This host's address to listen on, never all of them; [IP6]:PORT for IPv6",
    },
    output: {
      type: "string",
      alias: "o",
      valueHint: "FILE",
      description: "Write the ticket to FILE (mode 0600)",
    },
    ...jsonOption,
  },
  async run({ args }) {
    const reporter = reporterFor(args);
    if (isIP(args.allow) === 0) throw new UsageError(`--allow ${args.allow}: give one IP address`);
    const portal = parsePortal(args.portal);
    await withSession(reporter, async (session) => {
      const request = { path: localPath(args.disk), portal, allow: args.allow };
      const { id, ticket } = await exportByHand(session, request);
      if (args.output !== undefined) {
        try {
          writeFileSync(args.output, `${ticket}\n`, { mode: 0o600, flag: "wx" });
        } catch (error) {
          await session.source.ask("source.release", { id, force: true });
          throw new PreconditionError(`the ticket cannot be written to ${args.output}: ${messageOf(error)}`);
        }
      }
      const isPrinted = args.output === undefined;
      reporter.message(
        "info",
        `${id}: exported; dlsm release ${id} takes the export away when it is no longer needed`,
      );
      reporter.result({
        json: { id, ticket: isPrinted ? ticket : null },
        lines: isPrinted ? [ticket] : [id],
      });
    });
  },
});

export const attach = defineCommand({
  meta: { name: "attach", description: "Attach a disk to an export made elsewhere" },
  args: {
    ticket: {
      type: "positional",
      required: true,
      valueHint: "TICKET",
      description: "The ticket's file, or - for stdin",
    },
    disk: { type: "positional", required: true, valueHint: "DISK", description: "Where the disk goes" },
    ...volumeOptions,
    ...detachOption,
    ...jsonOption,
  },
  async run({ args }) {
    const reporter = reporterFor(args);
    const options = readVolumeOptions(args);
    const ticket = decodeTicket(readTicket(args.ticket));
    await withSession(reporter, async (session) => {
      const request = { ...options, destination: localPath(args.disk), verify: false };
      const entry = await attachByTicket(session, ticket, request);
      const { id } = entry;
      const isHandedOver = await handOff(session, entry, options.force);
      const status = await statusById(session, id);
      reporter.message("info", `when ${id} is done: dlsm release ${id} on ${ticket.source.host}`);
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

export const release = defineCommand({
  meta: { name: "release", description: "Take an export away; the source's data stays" },
  args: {
    ...idArgument,
    force: { type: "boolean", description: "Although the destination is still logged in" },
    ...jsonOption,
  },
  async run({ args }) {
    const reporter = reporterFor(args);
    await withSession(reporter, async ({ source }) => {
      const { wasThere } = await source.ask("source.release", { id: args.id, force: args.force === true });
      if (!wasThere) {
        throw new PreconditionError(`there is no export ${args.id} here`, { hint: "dlsm status lists them" });
      }
      reporter.result({
        json: { id: args.id, released: true },
        lines: [`${args.id} released: its disk stays as it is`],
      });
    });
  },
});

function readTicket(path: string): string {
  try {
    return readFileSync(path === "-" ? 0 : path, "utf8");
  } catch (error) {
    throw new PreconditionError(`the ticket ${path} cannot be read: ${messageOf(error)}`);
  }
}

function parsePortal(text: string): { address: string; port: number } {
  const match = /^\[(?<six>[^\]]+)\](?::(?<sixPort>\d+))?$|^(?<four>[^:]+)(?::(?<port>\d+))?$/.exec(text);
  const groups = match?.groups ?? {};
  const address = groups.six ?? groups.four ?? text;
  const port = Number(groups.sixPort ?? groups.port ?? 0);
  if (isIP(address) !== 0 && port <= 65535) return { address, port };
  throw new UsageError(`--portal ${text}: give an IP address of this host, with :PORT if you like`);
}
