/**
 * tgtd is killed again and again while a client reads and writes: who drives starts it again; where nobody does,
 * status says what is the matter in a line, and resume or abort finishes it. (Invariants 9, 11 and 12.)
 */
import { readFileSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { makeDisk } from "../helpers/disk.ts";
import { Dlsm } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { killParts, pidsOf, until } from "../helpers/processes.ts";
import { NbdClient } from "./nbd-client.ts";
import { explains, type Scene, underLoad } from "./under-load.ts";

const test = suite("faults: tgtd");
const withTgt = needing(test, ["tgtd"]);

const disk = { sizeMiB: 40, dataMiB: Array.from({ length: 32 }, (_, at) => at), clients: 2 };
const whyGone = /^ {2}last error: tgtd, which exports (?:the source|it), does not run/;

/** Kills it when the sync has come a bit further; resolves when another one serves the engine. */
async function killAndMend({ dlsm, id, random, load }: Scene, mend: () => Promise<void>): Promise<void> {
  const [old] = pidsOf(dlsm, "tgtd");
  await load.more(1 + random.below(100));
  await mend();
  await until(() => pidsOf(dlsm, "tgtd").some((pid) => pid !== old), "another tgtd");
  await dlsm.until(id, (status) => status?.waitingForSource === false, "the source is back");
}

withTgt("killed during the sync: it is started again each time, by the driver or by resume", async () => {
  await underLoad({ ...disk, args: ["--bwlimit", "256KiB/s"] }, async (scene) => {
    const { dlsm, id, load } = scene;
    for (let round = 0; round < 3; round++) await killAndMend(scene, () => killParts(dlsm, ["tgtd"]));
    await killAndMend(scene, async () => {
      await killParts(dlsm, ["driver", "tgtd"]);
      await dlsm.until(id, (status) => status?.waitingForSource === true, "it shows");
      await explains(dlsm, id, whyGone);
      await explains(dlsm, id, new RegExp(`dlsm resume ${id} goes on from here`));
      await dlsm.ok("resume", id, "--detach");
    });
    const { disks: [{ refetchedBytes }] } = (await dlsm.status(id))!;
    assert.is(refetchedBytes, 0, "no block came twice");
    await load.more(20);
  });
});

withTgt("killed before the hand-off: status says so, and abort takes everything back", async () => {
  const dlsm = new Dlsm();
  try {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeDisk(source, 16, [0, 3]);
    const before = readFileSync(source);
    const { id, socket } = await dlsm.migrateDetached(source, destination, ["--handoff", "manual"]);
    const client = await NbdClient.connect(socket);
    assert.is(Buffer.compare(await client.read(0, 4096), before.subarray(0, 4096)), 0);
    await killParts(dlsm, ["driver", "tgtd"]);
    await dlsm.until(id, (status) => status?.waitingForSource === true, "it shows");
    await explains(dlsm, id, whyGone);
    client.close();
    await dlsm.ok("abort", id);
    assert.ok(readFileSync(source).equals(before), "the source is as it was");
    await dlsm.nothingLeft();
  } finally {
    await dlsm.close();
  }
});

test.run();
