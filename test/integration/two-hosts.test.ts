/** A whole migration between two hosts, begun on either of them or on a third one; what crosses the link. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { MiB } from "../helpers/disk.ts";
import { hasIpv6 } from "../helpers/hosts/mod.ts";
import { needing } from "../helpers/needs.ts";
import { lastJson, Move, programsOfTwoHosts } from "./two-hosts.ts";

const test = suite("two-hosts");
const withHosts = needing(test, programsOfTwoHosts, { root: true });
const names = ["node1", "node2", "node3"] as const;

const runs = [
  { controller: "node1", family: 4, options: ["--verify"] },
  { controller: "node2", family: 4, options: [] },
  { controller: "node3", family: 4, options: ["--verify"] },
  { controller: "node1", family: 6, options: [] },
  { controller: "node2", family: 6, options: [] },
  { controller: "node3", family: 6, options: [] },
  { controller: "node3", family: 4, options: ["--tunnel"] },
] as const;

for (const { controller, family, options } of runs) {
  const what = ["from", controller, `IPv${family}`, ...options].join(" ");
  if (family === 6 && !hasIpv6) continue;
  withHosts(`a disk moves: ${what}`, async () => {
    await Move.with(names, { family }, async (move) => {
      const { stdout, stderr, exitCode } = await move.start(move.net.host(controller), ...options).ended;
      assert.is(exitCode, 0, stderr);
      const last = lastJson(stdout);
      assert.is(last.phase, "done");
      assert.equal([last.source.path, last.destination.path], [move.source, move.destination]);
      assert.is(last.disks[0]!.fetchedBytes.sync, 16 * MiB);
      move.checkDestination();
      await move.nothingLeft();
    });
  });
}

/** What ssh sends and the iSCSI session says besides data. */
const talkBytes = 2 * MiB;

withHosts("a block crosses the link once; one that is written first never does", async () => {
  await Move.with(["node1", "node2"], { sizeMiB: 256 }, async (move) => {
    const { from, to } = move;
    const before = [from.counters(), to.counters()];
    const { id } = await move.detached(from, "--handoff", "manual", "--hold-cutover");
    await to.ok("pause", id);
    await to.ok("activate", id);
    const written = Array.from({ length: 64 }, (_, at) => 128 + at);
    await move.write(id, written);
    await to.ok("resume", id, "--detach");
    await move.check(id, 200);
    const last = (await move.until(id, (status) => status?.phase === "released", "released"))!;
    const { demand, readahead, sync } = last.disks[0]!.fetchedBytes;
    const fetchedBytes = demand + readahead + sync;
    assert.is(fetchedBytes, 192 * MiB);
    assert.is(last.disks[0]!.refetchedBytes, 0);
    assert.is(last.disks[0]!.overwrittenBytes, 64 * MiB);
    const crossed = [
      from.counters().sentBytes - before[0]!.sentBytes,
      to.counters().receivedBytes - before[1]!.receivedBytes,
    ];
    for (const bytes of crossed) {
      assert.ok(bytes <= 1.05 * fetchedBytes + talkBytes, `${bytes} bytes for ${fetchedBytes}`);
      assert.ok(bytes >= fetchedBytes, `${bytes} bytes for ${fetchedBytes}: the counters count`);
    }
    await to.ok("cutover", id);
    await move.finished(id);
  });
});

test.run();
