import { setTimeout as sleep } from "node:timers/promises";
import { defineCommand } from "citty";
import { PreconditionError } from "../../lib/errors.ts";
import { allStatuses, findEnded, findHosts, statusById } from "../../migration/mod.ts";
import { hostOption, idOf, jsonOption, parseHosts, repeated } from "../options.ts";
import { reporterFor, type Session, showStatus, withSession } from "../session.ts";

const watchMs = 1_000;

export const status = defineCommand({
  meta: { name: "status", description: "What runs, how far it is, how fast, when it is done" },
  args: {
    id: { type: "positional", required: false, description: "Only this migration" },
    watch: { type: "boolean", description: "Again every second, until it has ended" },
    ...hostOption,
    ...jsonOption,
  },
  async run({ args, rawArgs }) {
    const reporter = reporterFor(args);
    const id = args.id === undefined ? undefined : idOf({ id: args.id });
    const hosts = parseHosts(repeated(rawArgs, "--host"));
    let isRead = true;
    process.stdout.once("error", () => isRead = false);
    await withSession(reporter, { named: hosts }, async (session) => {
      let isFirst = true;
      for (;;) {
        const statuses = await statusesFor(session, id, isFirst);
        for (const status of statuses) showStatus(reporter, status);
        if (statuses.length === 0 && isFirst) reporter.message("info", "no migration on this machine");
        if (!args.watch || statuses.every(({ phase }) => phase === "done")) return;
        isFirst = false;
        await sleep(watchMs, undefined, { signal: session.signal }).catch(() => {});
        if (session.signal.aborted || !isRead) return;
      }
    });
  },
});

/** An id that is unknown at first is an error; one that goes away while it is watched has ended. */
async function statusesFor(session: Session, id: string | undefined, isFirst: boolean) {
  if (id === undefined) return await allStatuses(session.hosts);
  try {
    return [await statusById({ ...session, ...await findHosts(session.hosts, id) }, id)];
  } catch (error) {
    if (!(error instanceof PreconditionError)) throw error;
    const ended = isFirst ? await findEnded(session.hosts, id) : undefined;
    if (isFirst && ended === undefined) throw error;
    return ended === undefined ? [] : [ended];
  }
}
