/** A disk goes back to where it came from; what crosses, when it is refused, and what is refused meanwhile. */
import { chmodSync, closeSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from "node:fs";
import { execa } from "execa";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { Dlsm } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { pidsOf } from "../helpers/processes.ts";
import { NbdClient } from "./nbd-client.ts";
import { sizeMiB, WayBack } from "./way-back.ts";

const test = suite("failback");
const withTgt = needing(test, ["tgtd"]);

const blockBytes = 4096;
const slow = ["--bwlimit", "16KiB/s"];

const sumOf = (fetched: { demand: number; readahead: number; sync: number }) =>
  fetched.demand + fetched.readahead + fetched.sync;

withTgt("what was written goes back and nothing else; both disks are as they should be", async () => {
  await WayBack.with(["--keep-source", "--verify"], async (way) => {
    chmodSync(way.b, 0o640);
    await way.synced();
    // A part of a block, a run across MiB, the end of the disk; then a MiB that becomes a hole.
    await way.write(way.id, [[5 * MiB + 512, 1024], [7 * MiB - 8192, 65_536], [sizeMiB * MiB - 4096, 4096]]);
    const client = await way.client();
    await client.trim(9 * MiB, MiB);
    way.expected.fill(0, 9 * MiB, 10 * MiB);
    client.close();
    await way.dlsm.until(way.id, (status) => status?.phase === "synced", "synced");
    const { stdout, stderr } = await way.dlsm.ok("failback", way.id, "--force", "--json");
    const last = JSON.parse(stdout.trim().split("\n").at(-1)!);
    assert.match(stderr, /goes back as/);
    assert.is.not(last.id, way.id);
    assert.equal([last.phase, last.source.path, last.destination.path], ["done", way.b, way.a]);
    const [disk] = last.disks;
    assert.is(sumOf(disk.fetchedBytes), blockBytes + 65_536 + blockBytes);
    assert.equal([disk.holeBytes, disk.refetchedBytes], [MiB, 0]);
    assert.is(last.verifiedBytes, sizeMiB * MiB, "all of both disks");
    way.checkA();
    assert.ok(readFileSync(way.b).equals(way.expected));
    assert.equal([statSync(way.a).mode, statSync(way.b).mode & 0o777], [way.modeOfA, 0o640]);
    for (const path of [way.a, way.b]) closeSync(openSync(path, "r+"));
  });
});

withTgt("before all of it has left: it is in use at the old source while it comes", async () => {
  await WayBack.with(slow, async (way) => {
    const written = [[2 * MiB, 2 * MiB], [12 * MiB, 8192]] as const;
    await way.write(way.id, written);
    const { id } = await way.back();
    assert.equal((await way.dlsm.status(id))!.phase, "active");
    assert.is(await way.dlsm.status(way.id), undefined, "the old migration is gone");
    await way.write(id, [[3 * MiB, 4096], [13 * MiB + 512, 512]]);

    // Neither disk is whole now.
    const abort = await way.dlsm.run("abort", id, "--force");
    assert.is(abort.exitCode, 3, abort.stderr);
    assert.match(abort.stderr, /neither of its two disks/);
    const again = await way.dlsm.run("failback", id);
    assert.is(again.exitCode, 3, again.stderr);
    assert.match(again.stderr, /never had all of its data/, again.stderr);
    const verify = await way.dlsm.run("verify", id);
    assert.is(verify.exitCode, 3, verify.stderr);
    await way.check(id);

    await way.dlsm.run("limit", id, "off");
    const last = await way.dlsm.until(
      id,
      (status) => status === undefined || status.phase === "released",
      "here",
    );
    if (last !== undefined) assert.ok(sumOf(last.disks[0]!.fetchedBytes) <= 2 * MiB + 8192);
    await way.dlsm.until(id, (status) => status === undefined, "done");
    way.checkA();
  });
});

withTgt("there and back again, twice, with what was written on each side", async () => {
  await WayBack.with(["--keep-source"], async (way) => {
    await way.synced();
    await way.write(way.id, [[MiB, MiB]]);
    const first = await way.back();
    await way.dlsm.until(first.id, (status) => status === undefined, "back");
    way.checkA();
    const { id } = await way.dlsm.migrateDetached(way.a, way.b, ["--force", "--keep-source"]);
    way.id = id;
    await way.synced();
    await way.write(id, [[4 * MiB, 4096]]);
    const second = await way.back();
    await way.dlsm.until(second.id, (status) => status === undefined, "back");
    way.checkA();
  });
});

withTgt("several disks go back together, each with what was written to it", async () => {
  const dlsm = new Dlsm();
  try {
    const paths = [1, 2].map((at) => ({ from: dlsm.path(`a${at}.img`), to: dlsm.path(`b${at}.img`) }));
    for (const { from } of paths) makeDisk(from, 4, [0, 1, 2]);
    const expected = paths.map(({ from }) => readFileSync(from));
    const disks = paths.flatMap(({ from, to }) => ["--disk", `${from}=${to}`]);
    const { stdout } = await dlsm.ok("migrate", ...disks, "--keep-source", "--detach", "--json");
    const { id } = JSON.parse(stdout.trim().split("\n").at(-1)!);
    await dlsm.until(id, (status) => status?.phase === "synced", "synced");
    for (const [at, content] of expected.entries()) {
      const client = await NbdClient.connect(dlsm.socketOf(`${id}-${at + 1}`));
      const data = Buffer.alloc(4096 * (at + 1), 0x77);
      await client.write(MiB, data);
      data.copy(content, MiB);
      client.close();
    }
    const back = await dlsm.ok("failback", id, "--force", "--json");
    const last = JSON.parse(back.stdout.trim().split("\n").at(-1)!);
    assert.equal(last.disks.map(({ fetchedBytes }: never) => sumOf(fetchedBytes)), [4096, 8192]);
    for (const [at, { from }] of paths.entries()) assert.ok(readFileSync(from).equals(expected[at]!), from);
    await dlsm.nothingLeft();
  } finally {
    await dlsm.close();
  }
});

async function refused(way: WayBack, message: RegExp, ...args: string[]): Promise<void> {
  const { exitCode, stderr } = await way.dlsm.run("failback", way.id, ...args);
  assert.is(exitCode, 3, stderr);
  assert.match(stderr, message);
}

withTgt("refused while a client is connected, and before the hand-off; --force disconnects", async () => {
  await WayBack.with(["--handoff", "manual", "--keep-source"], async (way) => {
    await refused(way, /its hand-off has not happened/);
    await way.dlsm.ok("activate", way.id);
    await way.synced();
    const client = await way.client();
    await refused(way, /1 NBD connection/);
    assert.is((await client.read(0, 1)).length, 1, "it goes on");
    const { id } = await way.back("--force");
    await client.read(0, 1).then(() => assert.unreachable(), () => {});
    await way.dlsm.until(id, (status) => status === undefined, "done");
    way.checkA();
  });
});

withTgt("refused when the source was released, and when it was written", async () => {
  await WayBack.with(["--hold-cutover"], async (way) => {
    await way.dlsm.until(way.id, (status) => status?.phase === "released", "released");
    await refused(way, /its source was released/);
    await way.dlsm.ok("cutover", way.id);
  });
  await WayBack.with(["--keep-source"], async (way) => {
    await way.synced();
    await execa("chattr", ["-i", way.a], { reject: false });
    chmodSync(way.a, 0o644);
    const file = openSync(way.a, "r+");
    writeSync(file, "somebody", MiB);
    closeSync(file);
    await refused(way, /was changed after it was fenced/);
    assert.is((await way.dlsm.status(way.id))!.phase, "synced");
    assert.is(pidsOf(way.dlsm, "engine").length, 1, "it goes on");
    await way.dlsm.ok("cutover", way.id);
    assert.ok(readFileSync(way.b).equals(way.expected));
  });
});

withTgt("refused with a ticket", async () => {
  await WayBack.with(["--hold-cutover"], async (way) => {
    await way.dlsm.ok("cutover", way.id);
    const source = way.dlsm.path("c.img");
    await execa("cp", [way.b, source]);
    const { stdout } = await way.dlsm.ok(
      "export",
      source,
      "--portal",
      "127.0.0.1",
      "--allow",
      "127.0.0.1",
      "--json",
    );
    const { id, ticket } = JSON.parse(stdout.trim().split("\n").at(-1)!);
    const file = way.dlsm.path("ticket");
    writeFileSync(file, ticket, { mode: 0o600 });
    await way.dlsm.ok("attach", file, way.dlsm.path("d.img"), "--hold-cutover", "--detach");
    way.id = id;
    await way.dlsm.ok("activate", id);
    await refused(way, /ticket/);
    await way.dlsm.until(id, (status) => status?.phase === "released", "all is here");
    await way.dlsm.ok("release", id, "--force");
    await way.dlsm.ok("cutover", id);
  });
});

test.run();
