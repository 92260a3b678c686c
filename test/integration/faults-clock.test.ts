/** The wall clock is set, by days and both ways, while a migration runs: nothing hangs, ends early or goes wrong. */
import { readFileSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Dlsm, kill } from "../helpers/dlsm.ts";
import { libraryOfFaketime, withFakeClock } from "../helpers/fake-clock.ts";
import { needing } from "../helpers/needs.ts";
import { killParts, pidsOf, within } from "../helpers/processes.ts";
import { History, makeSectorDisk } from "../helpers/sectors.ts";
import { tempFolder } from "../helpers/temp.ts";
import { CrashLoad } from "./crash-load.ts";
import { explains, seed } from "./under-load.ts";

const test = suite("faults: the clock");
const withTgt = needing(test, ["tgtd", "faketime"]);

const sizeMiB = 32;
const dataMiB = Array.from({ length: 24 }, (_, at) => at);
const daySeconds = 86_400;

withTgt("days forwards and backwards while it runs: the pace is told right, and it ends well", async () => {
  assert.ok(libraryOfFaketime !== undefined);
  await withFakeClock(tempFolder("c"), async (clock) => {
    const dlsm = new Dlsm(clock.environment);
    try {
      const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
      makeSectorDisk(source, sizeMiB, dataMiB);
      const before = readFileSync(source);
      clock.set(-400 * daySeconds);
      const args = ["--bwlimit", "256KiB/s", "--source-timeout", "1h"];
      const { id, socket, status } = await dlsm.migrateDetached(source, destination, args);
      const startedMs = Date.parse(status.createdAt);
      assert.ok(Math.abs(startedMs + 400 * daySeconds * 1000 - Date.now()) < 600_000, "it has the fake time");
      const engine = pidsOf(dlsm, "engine");
      const history = new History(sizeMiB, dataMiB);
      const load = new CrashLoad({ socket, history, seed, clients: 2 });
      try {
        await load.allConnect();
        for (const days of [-390, -800, 5, 0]) {
          clock.set(days * daySeconds);
          await load.more(60);
          const now = (await dlsm.status(id))!;
          const { etaSeconds, rateBytesPerSecond, waitingForSource } = now.disks[0];
          assert.ok(etaSeconds === null || (etaSeconds >= 0 && etaSeconds < daySeconds), `${etaSeconds} s`);
          assert.ok(rateBytesPerSecond >= 0 && rateBytesPerSecond < 1e9, `${rateBytesPerSecond} bytes/s`);
          assert.not.ok(waitingForSource, "no session was taken for dead");
          await explains(dlsm, id, /^ {2}[\d.]+ % of 32 MiB is here; (?!.*NaN)/);
        }
        // What is started after a step works with what was before it.
        clock.set(-30 * daySeconds);
        await noticesSilence(dlsm, id);
        await killParts(dlsm, ["tgtd"]);
        clock.set(30 * daySeconds);
        await dlsm.until(id, (found) => found?.waitingForSource === false, "the source is back");
        await load.more(60);
        assert.equal(pidsOf(dlsm, "engine"), engine, "it is the same engine still");
        await killParts(dlsm, ["driver"]);
        clock.set(-500 * daySeconds);
        await load.stop();
      } finally {
        load.abandon();
      }
      await dlsm.ok("limit", id, "off");
      const resumed = await within(dlsm.ok("resume", id, "--json"), "resume ends");
      const last = JSON.parse(resumed.stdout.trim().split("\n").at(-1)!);
      assert.is(last.phase, "done");
      // By the clock it ended long before it began.
      assert.is(last.tookSeconds, null);
      assert.is(history.settleFile(destination), undefined, `seed ${seed}`);
      assert.ok(readFileSync(source).equals(before), "the source is as it was");
      await dlsm.nothingLeft();
    } finally {
      await dlsm.close();
    }
  });
});

/** After a step backwards the keepalive still counts what passes. */
async function noticesSilence(dlsm: Dlsm, id: string): Promise<void> {
  const [pid] = pidsOf(dlsm, "tgtd");
  kill(pid!, "SIGSTOP");
  try {
    await dlsm.until(id, (found) => found?.waitingForSource === true, "the silence is noticed");
  } finally {
    kill(pid!, "SIGCONT");
  }
}

test.run();
