/** `kill -9` of each process on each host at every phase: `resume` finishes it, or `abort` cleans up. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { MigrationStatus } from "../../src/report/mod.ts";
import type { TestHost } from "../helpers/hosts/mod.ts";
import { needing } from "../helpers/needs.ts";
import { within } from "../helpers/processes.ts";
import { killOn, Move, type Part, pidsOn, programsOfTwoHosts } from "./two-hosts.ts";

const test = suite("two-hosts-kill");
const withHosts = needing(test, programsOfTwoHosts, { root: true });
const names = ["node1", "node2", "node3"] as const;

/** Moments of the set-up, each as soon as it can be seen. */
const moments = {
  planned: (move: Move) => move.idOn(move.to, "destination"),
  exporting: (move: Move) => move.idOn(move.from, "source"),
  attaching: async (move: Move) => {
    await move.to.wait(() => pidsOn(move.to, "engine").length > 0, "an engine");
    return await move.idOn(move.to, "destination");
  },
} as const;

const setUps = [
  { moment: "planned", kill: ["node3", "command"], then: "resume" },
  { moment: "exporting", kill: ["node3", "command"], then: "abort" },
  { moment: "exporting", kill: ["node1", "role"], then: "resume" },
  { moment: "attaching", kill: ["node3", "command"], then: "resume" },
  { moment: "attaching", kill: ["node2", "role"], then: "abort" },
  { moment: "attaching", kill: ["node2", "engine"], then: "resume" },
] as const;

for (const { moment, kill: [name, part], then } of setUps) {
  withHosts(`set-up, ${moment}: kill the ${part} on ${name}, then ${then}`, async () => {
    await Move.with(names, {}, async (move) => {
      const controller = move.net.host("node3");
      const command = move.start(controller, "--handoff", "manual");
      const id = await moments[moment](move);
      await killOn(move.net.host(name), part);
      // What was asked may have gone well all the same; then it waits for the hand-off.
      const isOver = await Promise.race([
        command.ended.then(() => true),
        move.until(id, isAttached, "attached").then(() => false, () => false),
      ]);
      if (!isOver) await command.kill();
      const isTakenBack = isOver && !existsSync(join(move.to.env.DLSM_STATE_DIR!, "destination", id));
      // A controller that lives undoes what it cannot finish.
      if (isTakenBack) return await move.takenBack();
      // From the host that knows where both are.
      if (then === "abort") {
        await controller.ok("abort", id);
        return await move.takenBack();
      }
      await move.to.ok("resume", id, "--detach");
      await move.until(id, isAttached, "attached");
      await move.check(id, 3);
      await controller.ok("activate", id);
      await move.write(id, [3, 7]);
      await move.finished(id);
    });
  });
}

const isAttached = (status?: MigrationStatus) =>
  status?.phase === "attached" && status.disks[0]!.enginePid !== null;

/** Kills, then waits until all runs again: by itself, or after `resume`. */
async function killed(
  move: Move,
  id: string,
  kills: readonly (readonly [TestHost, Part])[],
  phase: MigrationStatus["phase"],
): Promise<void> {
  for (const [host, part] of kills) await killOn(host, part);
  const wasDriver = kills.some(([, part]) => part === "driver");
  if (wasDriver) await move.to.ok("resume", id, "--detach");
  await move.until(
    id,
    (status) =>
      status?.phase === phase && status.disks[0]!.enginePid !== null && !status.waitingForSource &&
      pidsOn(move.to, "driver").length === 1 &&
      (phase === "released" || pidsOn(move.from, "tgtd").length === 1),
    `all is up again after ${kills.map(([host, part]) => `${part} on ${host.name}`).join(", ")}`,
  );
}

withHosts(
  "each process alone and all of them, while it waits for the hand-off and while it syncs",
  async () => {
    await Move.with(names, {}, async (move) => {
      const { from, to } = move;
      const { id } = await move.detached(
        from,
        "--handoff",
        "manual",
        "--bwlimit",
        "64KiB/s",
        "--hold-cutover",
      );
      const kills: (readonly [TestHost, Part])[][] = [
        [[to, "engine"]],
        [[from, "tgtd"]],
        [[to, "driver"], [to, "engine"], [from, "tgtd"]],
      ];
      for (const each of kills) {
        await killed(move, id, each, "attached");
        await move.check(id, 5);
      }
      await to.ok("activate", id);
      for (const [number, each] of kills.entries()) {
        await move.write(id, [2 + number]);
        await killed(move, id, each, "active");
        await move.check(id, 2 + number);
        await move.check(id, 10 + number);
      }
      await to.ok("limit", id, "off");
      await move.until(id, (status) => status?.phase === "released", "released");
      await killed(move, id, [[to, "engine"]], "released");
      await killed(move, id, [[to, "driver"], [to, "engine"]], "released");
      await move.check(id, 15);
      await to.ok("cutover", id);
      await move.finished(id);
    });
  },
);

withHosts("a controller that is killed while it syncs: it goes on by itself, to the end", async () => {
  await Move.with(names, {}, async (move) => {
    const node3 = move.net.host("node3");
    const command = move.start(node3, "--bwlimit", "256KiB/s");
    const id = await move.idOn(move.to, "destination");
    await move.until(id, (status) => status?.phase === "active", "active");
    await command.kill();
    await move.to.wait(() => pidsOn(move.to, "driver").length === 1, "a driver in the background");
    // From the third host, which only has its address book.
    assert.is((await node3.status(id))[0]?.phase, "active");
    await node3.ok("limit", id, "off");
    await move.finished(id);
  });
});

withHosts("roles that are killed while a controller drives: it asks again, and finishes", async () => {
  await Move.with(names, {}, async (move) => {
    const command = move.start(move.net.host("node3"), "--bwlimit", "256KiB/s");
    const id = await move.idOn(move.to, "destination");
    await move.until(id, (status) => status?.phase === "active", "active");
    await killOn(move.from, "role");
    await move.write(id, [9]);
    await killOn(move.to, "role");
    await move.until(id, (status) => status?.phase === "active", "active");
    await move.to.ok("limit", id, "off");
    const { exitCode, stderr } = await within(command.ended, "the command ends");
    assert.is(exitCode, 0, stderr);
    await move.finished(id);
  });
});

test.run();
