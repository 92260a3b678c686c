/** No more files can be opened, by the engine or by a command: it is told, nothing is lost, and it goes on. */
import { execa } from "execa";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { selfCommand } from "../../src/lib/self.ts";
import { skipMarker } from "../helpers/verdict.ts";
import { exhaustFiles, processorShare } from "../helpers/descriptors.ts";
import { MiB } from "../helpers/disk.ts";
import { needing } from "../helpers/needs.ts";
import { killParts, pidsOf } from "../helpers/processes.ts";
import { rejection } from "../helpers/rejection.ts";
import { NbdClient } from "./nbd-client.ts";
import { explains, underLoad } from "./under-load.ts";

const test = suite("faults: open files");
const withTgt = needing(test, ["tgtd", "prlimit"]);

const disk = { sizeMiB: 32, dataMiB: Array.from({ length: 24 }, (_, at) => at), clients: 2 };
const tooMany = /the engine of \w+ \(pid \d+\) ends every connection at once/;
const engineCanOpenNone =
  "the engine can open none: its clients go on, status says why, and later all goes on";
/** Deno takes a descriptor for every write, and lets connections wait: what is promised here is Node's. */
const underNode: typeof withTgt = (name, body) => {
  if (!("Deno" in globalThis)) return withTgt(name, body);
  console.log(`${skipMarker}${name}: the runtime itself needs descriptors to write`);
  test.skip(name, body);
};

underNode(engineCanOpenNone, async () => {
  await underLoad(disk, async ({ dlsm, id, load, socket }) => {
    const pid = pidsOf(dlsm, "engine")[0]!;
    await load.more(50);
    const undo = await exhaustFiles(pid);
    try {
      await load.more(50);
      await explains(dlsm, id, new RegExp(`^ {2}last error: ${tooMany.source}: .*prlimit`));
      const limited = await dlsm.run("limit", id, "1MiB/s");
      assert.is(limited.exitCode, 1, limited.stderr);
      assert.match(limited.stderr, new RegExp(`${tooMany.source}\n {2}.*prlimit`));
      await rejection(NbdClient.connect(socket), Error);
      // It cannot even connect to its source again.
      await killParts(dlsm, ["tgtd"]);
      const share = await processorShare(pid);
      assert.ok(share < 0.7, `it takes ${share} of a processor`);
      assert.not.equal(pidsOf(dlsm, "engine"), [], "it lives");
      assert.not.equal(pidsOf(dlsm, "driver"), [], "its driver waits");
    } finally {
      await undo();
    }
    await dlsm.until(id, (found) => found?.waitingForSource === false, "the source is back");
    // The driver has its last word on it until it looks again.
    await dlsm.until(id, (found) => found?.lastError === null, "all is well");
    assert.equal(pidsOf(dlsm, "engine"), [pid]);
    await load.more(50);
  });
});

withTgt(
  "a command may open few files: it works, or says which limit it met; nothing is changed",
  async () => {
    await underLoad(disk, async ({ dlsm, id, load }) => {
      const { program, args } = selfCommand(["status", id]);
      let told = 0;
      for (let files = 20; files <= 40; files += 1) {
        const ran = await execa("prlimit", [`--nofile=${files}`, program, ...args], {
          env: dlsm.environment,
          reject: false,
          stdin: "ignore",
        });
        // With fewer it is the runtime that cannot start.
        const isTold = /^error: dlsm has as many files open as it may: .*\n {2}raise the limit \(ulimit -n/
          .test(
            ran.stderr,
          );
        told += isTold ? 1 : 0;
        assert.not.match(ran.stderr, /report it/);
        if (ran.exitCode === 0) break;
        assert.ok(files < 40, `with ${files} files: ${ran.stderr}`);
      }
      assert.ok(told > 0 || "Deno" in globalThis, "the runtime never got so far");
      await load.more(10);
      assert.ok((await dlsm.status(id))!.disks[0].sizeBytes === disk.sizeMiB * MiB);
    });
  },
);

test.run();
