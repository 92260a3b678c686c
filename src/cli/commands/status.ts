import { setTimeout as sleep } from "node:timers/promises";
import { defineCommand } from "citty";
import { allStatuses, type Context, statusById } from "../../migration/mod.ts";
import { statusLines } from "../../report/mod.ts";
import { idOf, jsonOption } from "../options.ts";
import { reporterFor, withSession } from "../session.ts";

const watchMs = 1_000;

export const status = defineCommand({
  meta: { name: "status", description: "What runs, how far it is, how fast, when it is done" },
  args: {
    id: { type: "positional", required: false, description: "Only this migration" },
    watch: { type: "boolean", description: "Again every second, until it has ended" },
    ...jsonOption,
  },
  async run({ args }) {
    const reporter = reporterFor(args);
    const id = args.id === undefined ? undefined : idOf({ id: args.id });
    await withSession(reporter, async (session) => {
      let isFirst = true;
      for (;;) {
        const statuses = await statusesFor(session, id, isFirst);
        for (const status of statuses) reporter.result({ json: status, lines: statusLines(status) });
        if (statuses.length === 0 && isFirst) reporter.message("info", "no migration on this machine");
        if (!args.watch || statuses.length === 0) return;
        isFirst = false;
        await sleep(watchMs, undefined, { signal: session.signal }).catch(() => {});
        if (session.signal.aborted) return;
      }
    });
  },
});

/** An id that is unknown at first is an error; one that goes away while it is watched has ended. */
async function statusesFor(context: Context, id: string | undefined, isFirst: boolean) {
  if (id === undefined) return await allStatuses(context);
  if (isFirst) return [await statusById(context, id)];
  return (await allStatuses(context)).filter((status) => status.id === id);
}
