/** A link that is cut for a while, with or without a word, at every phase: all goes on when it is back. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { MigrationStatus } from "../../src/report/mod.ts";
import { type Cut } from "../helpers/hosts/mod.ts";
import { needing } from "../helpers/needs.ts";
import { within } from "../helpers/processes.ts";
import { lastJson, Move, pidsOn, programsOfTwoHosts } from "./two-hosts.ts";

const test = suite("two-hosts-link");
const withHosts = needing(test, programsOfTwoHosts, { root: true });
const cuts: readonly Cut[] = ["down", "drop"];

const isWaiting = (status?: MigrationStatus) => status?.waitingForSource === true;

const bodies = new Map<string, () => Promise<void>>();
let running: Map<string, Promise<void>> | undefined;

/**
 * Both ways of cutting, each on a network of its own. Most of it is waiting, for silence to be noticed: all
 * scenes run at the same time, from the first test on.
 */
function forEachCut(
  what: string,
  body: (move: Move, how: Cut) => Promise<void>,
  names: readonly string[] = ["node1", "node2"],
): void {
  for (const how of cuts) {
    const name = `${how}, ${what}`;
    bodies.set(name, () => Move.with(names, {}, (move) => body(move, how)));
    withHosts(name, async () => {
      running ??= new Map([...bodies].map(([each, run]) => [each, run()]));
      // What fails is told in its turn.
      for (const one of running.values()) one.catch(() => {});
      await running.get(name);
    });
  }
}

forEachCut(
  "before the hand-off and after it: reads of what is here and writes go on, the rest waits",
  async (move, how) => {
    const { net, from, to } = move;
    const { id } = await move.detached(from, "--handoff", "manual", "--bwlimit", "64KiB/s");
    await net.cut(to, how);
    await move.until(id, isWaiting, "it is told before the hand-off");
    await net.restore(to);
    await move.until(id, (status) => !isWaiting(status), "the source is back");
    await from.ok("activate", id);
    await move.check(id, 3);

    await net.cut(to, how);
    await move.write(id, [4, 5]);
    await move.check(id, 3);
    await move.until(id, isWaiting, "it is told");
    const absent = move.check(id, 9);
    await move.write(id, [6]);
    await net.restore(to);
    await absent;
    await to.ok("limit", id, "off");
    await move.finished(id);
  },
);

forEachCut(
  "while all is here and the source is not released: it is, when the link is back",
  async (move, how) => {
    const { net, from, to } = move;
    const { id } = await move.detached(from, "--bwlimit", "256KiB/s");
    await move.until(id, (status) => (status?.disks[0].residentBytes ?? 0) > 1 << 20, "it syncs");
    // What is missing comes from here, so that all is here while the source is away.
    await to.ok("pause", id);
    await net.cut(from, how);
    await move.write(id, Array.from({ length: 16 }, (_, at) => at));
    const resumed = to.start("dlsm", ["resume", id, "--json"]);
    await move.until(id, (status) => status?.phase === "synced", "all is here");
    assert.is(pidsOn(from, "tgtd").length, 1, "the export is still there");
    await net.restore(from);
    const { exitCode, stdout, stderr } = await within(resumed.ended, "resume ends", 120_000);
    assert.is(exitCode, 0, stderr);
    assert.is(lastJson(stdout).phase, "done");
    await move.finished(id);
  },
);

forEachCut("of the controller: the migration does not need it", async (move, how) => {
  const { net } = move;
  const node3 = net.host("node3");
  const command = move.start(node3, "--bwlimit", "64KiB/s");
  const id = await move.idOn(move.to, "destination");
  await move.until(id, (status) => status?.phase === "active", "active");
  await net.cut(node3, how);
  await move.to.ok("limit", id, "off");
  // It ends by itself, with a driver in the background when the controller's silence was noticed.
  await move.until(id, (status) => status === undefined, "done");
  move.checkDestination();
  await net.restore(node3);
  const { exitCode, stdout, stderr } = await within(command.ended, "the command ends", 120_000);
  assert.is(exitCode, 0, stderr);
  assert.is(lastJson(stdout).phase, "done");
  await move.finished(id);
}, ["node1", "node2", "node3"]);

forEachCut("while it is set up: resume finishes it, or nothing is left", async (move, how) => {
  const { net, from, to } = move;
  const command = move.start(from, "--handoff", "manual", "--detach");
  const id = await move.idOn(from, "source");
  await net.cut(to, how);
  const { exitCode, stderr } = await within(command.ended, "the command ends", 120_000);
  await net.restore(to);
  // Perhaps all was said already when it was cut.
  if (exitCode !== 0) assert.is(exitCode, 1, stderr);
  if (move.ids(from, "source").length === 0 && move.ids(to, "destination").length === 0) {
    return await move.takenBack();
  }
  await from.ok("resume", id, "--detach");
  await from.ok("activate", id);
  await move.check(id, 7);
  await move.finished(id);
});

forEachCut("while it is given up: abort is given again when the link is back", async (move, how) => {
  const { net, from, to } = move;
  const { id } = await move.detached(from, "--handoff", "manual");
  await net.cut(to, how);
  const { exitCode, stderr } = await from.dlsm("abort", id);
  assert.is(exitCode, 1, stderr);
  assert.match(stderr, /^error: .*node2/m);
  await net.restore(to);
  await from.ok("abort", id);
  await move.takenBack();
});

test.run();
