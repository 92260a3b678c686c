/** An engine that is killed in the very moment in which it is asked, or starts. */
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { engineFiles } from "../../src/engine/mod.ts";
import { engineStatus } from "../../src/role/engine-process.ts";
import { abort } from "../../src/migration/mod.ts";
import { kill } from "../helpers/dlsm.ts";
import { locally } from "../helpers/local-migration.ts";
import { needing } from "../helpers/needs.ts";
import { pidsOf } from "../helpers/processes.ts";
import { tempFolder } from "../helpers/temp.ts";
import { until } from "../helpers/until.ts";

const test = suite("an engine that is killed while it is asked");
const withTgt = needing(test, ["tgtd"]);

/**
 * Accepts so many connections as a dying engine does: nobody listens any more, then the last of them ends. (The
 * kernel closes its sockets one after the other: some are taken and ended before nobody listens.)
 */
async function dyingEngine(end: (socket: Socket) => void, connections: number): Promise<string> {
  const folder = tempFolder("run");
  let left = connections;
  const server: Server = createServer({ pauseOnConnect: true }, (socket) => {
    if (--left === 0) server.close();
    // By then what the other side sent lies there unread.
    const afterTurns = (turns: number) =>
      void (turns === 0 ? end(socket) : setImmediate(afterTurns, turns - 1));
    afterTurns(50);
  });
  await new Promise<void>((resolve) => server.listen(join(folder, engineFiles.controlSocket), resolve));
  return folder;
}

test("it is gone, however the connection ended: no record that cannot be read", async () => {
  const ends: Record<string, (socket: Socket) => void> = {
    closed: (socket) => socket.end(),
    // With unread data the system resets it.
    reset: (socket) => socket.destroy(),
    "cut in a frame": (socket) => socket.end("dlsm"),
  };
  for (const [how, end] of Object.entries(ends)) {
    for (const connections of [1, 2, 3]) {
      const run = await dyingEngine(end, connections);
      assert.is(await engineStatus({ state: run, run }), undefined, `${how}, ${connections} connections`);
    }
  }
});

withTgt(
  "it is started again where it is killed while it starts",
  () =>
    locally(async ({ dlsm, host, context, begin }) => {
      const { id, disks: [{ destination }] } = await begin(1);
      const { pid } = destination!.engine!;
      kill(pid, "SIGKILL");
      await until(() => !pidsOf(dlsm, "engine").includes(pid), "it is gone");
      const ensured = host.ask("destination.ensure", { id, export: null, force: false });
      // Long before it can have opened anything.
      await until(() => pidsOf(dlsm, "engine").length > 0, "it is started");
      const [starting] = pidsOf(dlsm, "engine");
      kill(starting, "SIGKILL");
      await ensured;
      const [again] = pidsOf(dlsm, "engine");
      assert.ok(again !== undefined && again !== starting);
      await abort(context, id, false);
      await dlsm.nothingLeft();
    }),
);

test.run();
