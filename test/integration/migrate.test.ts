/** The whole job with the real tgtd, from the command line. */
import { readFileSync, renameSync, statSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { MigrationStatus } from "../../src/report/mod.ts";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { Dlsm, kill } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";

const test = suite("migrate");
const withTgt = needing(test, ["tgtd"]);

withTgt("moves a disk, verifies it, keeps its holes, and leaves nothing behind", async () => {
  const dlsm = new Dlsm();
  try {
    const source = dlsm.path("src.img");
    const destination = dlsm.path("dst.img");
    makeDisk(source, 64, [0, 1, 2, 30, 31, 63]);
    const { stdout } = await dlsm.ok("migrate", source, destination, "--verify", "--json");
    const last = JSON.parse(stdout.trim().split("\n").at(-1)!);
    assert.is(last.phase, "done");
    assert.is(last.verifiedBytes, 64 * MiB);
    assert.is(last.disks[0].residentBytes, 64 * MiB);
    assert.is(last.disks[0].fetchedBytes.sync, 6 * MiB);
    assert.is(last.disks[0].holeBytes, 58 * MiB);
    assert.is(last.disks[0].refetchedBytes, 0);
    assert.is(Buffer.compare(readFileSync(source), readFileSync(destination)), 0);
    assert.ok(statSync(destination).blocks * 512 < 8 * MiB, "holes stay holes");
    await dlsm.nothingLeft();
  } finally {
    await dlsm.close();
  }
});

withTgt("a text run prints its figures", async () => {
  const dlsm = new Dlsm();
  try {
    makeDisk(dlsm.path("src.img"), 8, [0, 7]);
    const { stdout } = await dlsm.ok("migrate", dlsm.path("src.img"), dlsm.path("dst.img"), "--verify");
    assert.match(stdout, /moved +2 MiB of 8 MiB/);
    assert.match(stdout, /never moved +6 MiB of holes/);
    assert.match(stdout, /verified +8 MiB/);
    await dlsm.nothingLeft();
  } finally {
    await dlsm.close();
  }
});

withTgt("a pause outlives the engine, until it is lifted", async () => {
  const dlsm = new Dlsm();
  try {
    makeDisk(dlsm.path("src.img"), 8, [0, 1, 2, 3]);
    const source = readFileSync(dlsm.path("src.img"));
    const { id } = await dlsm.migrateDetached(dlsm.path("src.img"), dlsm.path("dst.img"), [
      "--handoff",
      "manual",
    ]);
    await dlsm.ok("pause", id);
    await dlsm.ok("activate", id);
    const before = (await dlsm.status(id))!.disks[0].enginePid!;
    kill(before, "SIGKILL");
    const status = await dlsm.until(
      id,
      (now) => now?.disks[0].enginePid != null && now.disks[0].enginePid !== before,
      "the driver starts another engine",
    );
    assert.is(status!.paused, true);
    assert.is(status!.disks[0].residentBytes, 0);
    await dlsm.ok("resume", id);
    await dlsm.until(id, (now) => now === undefined, "done");
    assert.is(Buffer.compare(readFileSync(dlsm.path("dst.img")), source), 0);
    await dlsm.nothingLeft();
  } finally {
    await dlsm.close();
  }
});

withTgt("a destination that is moved away is told, and the engine stays until it is back", async () => {
  const dlsm = new Dlsm();
  try {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeDisk(source, 8, [0, 1, 2, 3]);
    const { id } = await dlsm.migrateDetached(source, destination, ["--handoff", "manual"]);
    renameSync(destination, `${destination}.away`);
    makeDisk(destination, 8, []);
    await dlsm.ok("activate", id);
    const isTold = (status?: MigrationStatus) =>
      status?.lastError?.includes("was removed, moved or replaced") === true;
    await dlsm.until(id, (status) => status?.phase === "synced" && isTold(status), "told");
    const { exitCode, stderr } = await dlsm.run("resume", id);
    assert.is(exitCode, 1);
    assert.match(stderr, /moved or replaced.*\n {2}the data is only behind the volume's NBD socket/);
    assert.ok((await dlsm.status(id))!.disks[0].enginePid !== null, "the engine stays");
    renameSync(`${destination}.away`, destination);
    await dlsm.ok("resume", id);
    assert.is(Buffer.compare(readFileSync(source), readFileSync(destination)), 0);
    await dlsm.nothingLeft();
  } finally {
    await dlsm.close();
  }
});

test.run();
