/** What `--verify` comes to when something wrote the destination beside dlsm: no data is given up for it. */
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { MigrationStatus } from "../../src/report/mod.ts";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { Dlsm } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { pidsOf } from "../helpers/processes.ts";
import { until } from "../helpers/until.ts";

const test = suite("verify");
const withTgt = needing(test, ["tgtd"]);

withTgt("a difference: exit code 5 also from resume, both sides are kept, until it is mended", async () => {
  const dlsm = new Dlsm();
  try {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeDisk(source, 8, [0, 1, 2, 3]);
    const content = readFileSync(source);
    const { id } = await dlsm.migrateDetached(source, destination, ["--verify", "--bwlimit", "64KiB/s"]);
    // The data alone takes a minute: it is paused long before that.
    await dlsm.until(id, (status) => status!.disks[0]!.residentBytes > 0, "some of it is here");
    await dlsm.ok("pause", id);
    const { phase: pausedIn, disks: [{ nbdUri, residentBytes }] } = (await dlsm.status(id))!;
    assert.ok(nbdUri);
    assert.is(pausedIn, "active");
    assert.ok(residentBytes < 4 * MiB, `${residentBytes} bytes are here already`);
    // Every byte that may have come: somebody's mistake.
    write(destination, Buffer.alloc(4 * MiB, 0x5a));
    const different = (await dlsm.run("verify", id)).exitCode === 5;
    assert.ok(different, "verify sees it");
    await dlsm.ok("limit", id, "off");

    for (const args of [["resume", id], ["resume", id], ["verify", id]]) {
      const { exitCode, stderr } = await dlsm.run(...args);
      assert.is(exitCode, 5, `${args.join(" ")}: ${stderr}`);
      assert.match(stderr, "the source's export is kept");
    }
    // One in the background that is late would end the migration as soon as it is mended.
    await until(() => pidsOf(dlsm, "driver").length === 0, "nobody drives it any more");
    const { stdout } = await dlsm.ok("status", id);
    assert.match(stdout, `${id} synced`);
    assert.match(stdout, "everything is here and durable, but differs from the source, which is kept");
    const { phase, disks: [disk] } = (await dlsm.status(id))!;
    assert.equal([phase, disk!.verified], ["synced", "different"]);

    write(destination, content);
    await dlsm.ok("verify", id);
    const last = (await dlsm.ok("resume", id, "--json")).stdout.trim().split("\n").at(-1)!;
    const done = JSON.parse(last) as MigrationStatus & { verifiedBytes: number };
    assert.equal([done.phase, done.disks[0]!.verified, done.verifiedBytes], ["done", "same", 8 * MiB]);
    assert.is(Buffer.compare(readFileSync(destination), content), 0);
    // What is remembered of it says so, too.
    const remembered = JSON.parse((await dlsm.ok("status", id, "--json")).stdout) as MigrationStatus;
    assert.is(remembered.disks[0]!.verifiedBytes, 8 * MiB);
    await dlsm.nothingLeft();
  } finally {
    await dlsm.close();
  }
});

function write(path: string, content: Buffer): void {
  const file = openSync(path, "r+");
  try {
    writeSync(file, content, 0, content.length, 0);
  } finally {
    closeSync(file);
  }
}

test.run();
