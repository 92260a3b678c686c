/** The two roles by hand: export, attach, release. */
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { defineCommand } from "citty";
import { writePrivateFile } from "../../lib/atomic-file.ts";
import { errnoCode, messageOf, PreconditionError, UsageError } from "../../lib/errors.ts";
import { attachByTicket, exportByHand } from "../../migration/mod.ts";
import { decodeTicket } from "../../role/mod.ts";
import {
  checkNotLinkLocal,
  detachOption,
  idArgument,
  idOf,
  jsonOption,
  localPath,
  parsePortal,
  readVolumeOptions,
  volumeOptions,
} from "../options.ts";
import { goOn, reporterFor, withHere } from "../session.ts";

export const exportCommand = defineCommand({
  meta: { name: "export", description: "Export a disk by hand; prints a ticket for dlsm attach (a secret)" },
  args: {
    disk: {
      type: "positional",
      required: true,
      description: "A raw disk image or block device",
    },
    allow: {
      type: "string",
      required: true,
      valueHint: "ADDRESS",
      description: "IP address of the destination's host, the only one that may log in",
    },
    portal: {
      type: "string",
      default: "127.0.0.1",
      valueHint: "IP[:PORT]",
      description:
        "Address of this host to listen on, and port (any free one if not given); [IP6]:PORT for IPv6",
    },
    output: {
      type: "string",
      alias: "o",
      valueHint: "FILE",
      description: "Write the ticket to a new FILE (mode 0600) instead of printing it",
    },
    ...jsonOption,
  },
  async run({ args }) {
    const reporter = reporterFor(args);
    const portal = parsePortal(args.portal);
    const request = { path: localPath(args.disk), portal, allow: checkAllowed(args.allow, portal.address) };
    await withHere(reporter, async (session) => {
      const { id, ticket } = await exportByHand(session, request);
      if (args.output !== undefined) {
        try {
          writePrivateFile(args.output, `${ticket}\n`, "wx");
        } catch (error) {
          await session.source.ask("source.release", { id, force: true });
          throw new PreconditionError(`the ticket cannot be written to ${args.output}: ${why(error)}`, {
            hint: "nothing is exported; name a new file, in a folder that you may write",
            cause: error,
          });
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
      description: "File with the ticket of dlsm export, or - for stdin",
    },
    disk: {
      type: "positional",
      required: true,
      description: "Where the disk goes: a new file, or a block device that is large enough",
    },
    ...volumeOptions,
    ...detachOption,
    ...jsonOption,
  },
  async run({ args }) {
    const reporter = reporterFor(args);
    const options = readVolumeOptions(args);
    const request = { ...options, destination: localPath(args.disk) };
    const ticket = decodeTicket(readTicket(args.ticket), args.ticket === "-" ? "stdin" : args.ticket);
    await withHere(reporter, async (session) => {
      await attachByTicket(session, ticket, request);
      const { id } = ticket;
      reporter.message("info", `when ${id} is done: dlsm release ${id} on ${ticket.source.host}`);
      await goOn(session, id, { force: options.force, detach: args.detach === true });
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
    const id = idOf(args);
    await withHere(reporter, async ({ source }) => {
      const { wasThere, note } = await source.ask("source.release", { id, force: args.force === true });
      if (!wasThere) {
        throw new PreconditionError(`there is no export ${id} on this machine`, {
          hint: "dlsm status lists them",
        });
      }
      if (note !== null) reporter.message("warn", note);
      reporter.result({
        json: { id, released: true },
        lines: [`${id} released: its disk stays as it is`],
      });
    });
  },
});

function readTicket(path: string): string {
  try {
    return readFileSync(path === "-" ? 0 : path, "utf8");
  } catch (error) {
    throw new PreconditionError(`the ticket ${path} cannot be read: ${why(error)}`, {
      hint: "name the file that dlsm export --output wrote, or - for stdin",
      cause: error,
    });
  }
}

function why(error: unknown): string {
  switch (errnoCode(error)) {
    case "ENOENT":
      return "no such file or folder";
    case "EEXIST":
      return "it exists already";
    case "EISDIR":
      return "it is a folder";
    case "EACCES":
      return "permission denied";
    default:
      return messageOf(error);
  }
}

/** The one address that may log in, which has to be of the family that is listened on. */
function checkAllowed(allow: string, listenAddress: string): string {
  checkNotLinkLocal("--allow", allow);
  const family = isIP(allow);
  if (family === 0) {
    throw new UsageError(`--allow: ${allow} is not an IP address`, {
      hint: "give the one address that the destination's host connects from",
    });
  }
  if (family === isIP(listenAddress)) return allow;
  throw new UsageError(`--allow: ${allow} cannot log in to ${listenAddress}: one is IPv4, the other IPv6`, {
    hint: "name an address of this host of the same kind with --portal",
  });
}
