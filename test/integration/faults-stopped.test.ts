/**
 * Processes that are stopped for longer than anybody waits for them, and go on: status says in time what is the
 * matter, and nothing that was asked for is lost. (Invariants 9 and 11.)
 */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { kill } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { type Part, pidsOf, within } from "../helpers/processes.ts";
import { explains, type Scene, underLoad } from "./under-load.ts";

const test = suite("faults: stopped processes");
const withTgt = needing(test, ["tgtd"]);

const disk = { sizeMiB: 32, dataMiB: Array.from({ length: 24 }, (_, at) => at), clients: 2 };

/** Of one part of the migration; all that was stopped goes on at the end of `body`, whatever becomes of it. */
async function whileStopped(dlsm: Scene["dlsm"], part: Part, body: () => Promise<void>): Promise<void> {
  const pids = pidsOf(dlsm, part);
  assert.not.equal(pids, [], `no ${part}`);
  for (const pid of pids) kill(pid, "SIGSTOP");
  try {
    await body();
  } finally {
    for (const pid of pids) kill(pid, "SIGCONT");
  }
  assert.equal(pidsOf(dlsm, part), pids, "it is the same process still");
}

const engine = () =>
  underLoad(disk, async ({ dlsm, id, load }) => {
    await load.more(50);
    await whileStopped(dlsm, "engine", async () => {
      const why = /the engine of \w+ \(pid \d+\) does not answer/;
      await explains(dlsm, id, new RegExp(`^ {2}last error: ${why.source}: see what holds it up`));
      // No other command takes it for gone.
      const limited = await within(dlsm.run("limit", id, "1MiB/s"), "limit ends");
      assert.is(limited.exitCode, 1, limited.stderr);
      assert.match(limited.stderr, why);
      // In the end it was stopped for longer than both sides of its sessions bear silence, 15 s.
      await explains(dlsm, id, why);
    });
    await load.more(50);
    const status = await dlsm.until(id, (found) => found?.waitingForSource === false, "its source is back");
    assert.is(status!.phase, "active");
    await dlsm.until(id, (found) => found?.lastError === null, "all is well");
  });

const target = () =>
  underLoad(disk, async ({ dlsm, id, load }) => {
    await load.more(50);
    await whileStopped(dlsm, "tgtd", async () => {
      await dlsm.until(id, (found) => found?.waitingForSource === true, "the silence is noticed");
      await explains(dlsm, id, /^ {2}the source cannot be reached: reads of what is not here yet wait/);
    });
    await dlsm.until(id, (found) => found?.waitingForSource === false, "the source is back");
    await dlsm.until(id, (found) => found?.lastError === null, "all is well");
    await load.more(50);
  });

// Most of both is waiting.
const bodies = [engine, target];
let running: Promise<void>[] | undefined;

async function outcome(which: () => Promise<void>): Promise<void> {
  running ??= bodies.map((body) => body());
  // What fails is told in its turn.
  for (const one of running) one.catch(() => {});
  await running[bodies.indexOf(which)];
}

withTgt("the engine: status says so in time, commands leave it alone, and it goes on", async () => {
  await outcome(engine);
});

withTgt("tgtd, for longer than the keepalive: the wait shows, and it goes on", async () => {
  await outcome(target);
});

test.run();
