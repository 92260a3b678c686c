/** The machine was restarted: no process is left, and nothing counts but what is in the state folder. */
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { indexOffset } from "../../src/engine/map-layout.ts";
import { indexBits } from "../../src/engine/residency.ts";
import { destinationJournal } from "../../src/role/destination-journal.ts";
import { MiB } from "../helpers/disk.ts";
import { Dlsm } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { killParts, within } from "../helpers/processes.ts";
import { fillSectors, History, makeSectorDisk, sectorBytes } from "../helpers/sectors.ts";
import { ageMap, forgetRunFolder } from "./machine-restart.ts";
import { NbdClient } from "./nbd-client.ts";

const test = suite("reboot");
const withTgt = needing(test, ["tgtd"]);

const sizeMiB = 48;
const dataMiB = Array.from({ length: 40 }, (_, at) => at);
const perMiB = MiB / sectorBytes;

/** As if the run folder were on a disk: it is still there, with a live map that is worth nothing. */
function outdateLiveMap(path: string): void {
  ageMap(path);
  const bytes = readFileSync(path);
  bytes[indexOffset] = indexBits.written;
  writeFileSync(path, bytes);
}

const restarts: [string, (dlsm: Dlsm, id: string) => void][] = [
  ["run folder gone", forgetRunFolder],
  [
    "run folder of another boot",
    ({ environment }, id) => {
      outdateLiveMap(join(environment.DLSM_RUN_DIR, id, "dst", "live.map"));
      ageMap(join(environment.DLSM_STATE_DIR, "destination", id, "residency.map"));
    },
  ],
];

for (const [name, restart] of restarts) {
  withTgt(`${name}: status explains, resume finishes, and what was flushed is there`, async () => {
    const dlsm = new Dlsm();
    try {
      const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
      makeSectorDisk(source, sizeMiB, dataMiB);
      const before = readFileSync(source);
      const history = new History(sizeMiB, dataMiB);
      const { id, socket } = await dlsm.migrateDetached(source, destination, ["--bwlimit", "64KiB/s"]);
      const client = await NbdClient.connect(socket);
      const write = async (first: number, count: number, value: number) => {
        history.begin(first, count, value);
        await client.write(
          first * sectorBytes,
          fillSectors(new Uint8Array(count * sectorBytes), first, value),
        );
      };
      // Flushed: of whole blocks, of parts of absent ones, and what was there before a later write.
      for (const at of [10, 11, 35]) {
        const first = at * perMiB;
        await write(first, 64, 7);
        await write(first + 131, 1, 8);
        await client.trim(at * MiB + MiB / 2, 64 * 1024);
        await client.flush();
        history.acknowledge(first, 64, 7);
        history.acknowledge(first + 131, 1, 8);
        history.acknowledge(first + perMiB / 2, 128, 0);
      }
      await write(11 * perMiB + 8, 16, 9);
      await write(20 * perMiB, 64, 10);
      client.close();
      await killParts(dlsm, ["driver", "engine", "tgtd"]);
      restart(dlsm, id);

      const { stdout } = await dlsm.ok("status", id);
      assert.match(stdout, new RegExp(`engine of ${id} does not run.*`));
      const status = await dlsm.status(id);
      assert.is(status!.phase, "active");
      assert.ok(status!.disks[0].residentBytes > 0, "what is durable counts");
      await dlsm.ok("resume", id, "--detach");
      await dlsm.ok("limit", id, "off");
      await dlsm.until(id, (found) => found === undefined, "done");
      assert.is(history.settleFile(destination), undefined);
      assert.ok(readFileSync(source).equals(before));
      await dlsm.nothingLeft();
    } finally {
      await dlsm.close();
    }
  });
}

withTgt("in the middle of the cut-over: resume ends it", async () => {
  const dlsm = new Dlsm();
  try {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeSectorDisk(source, 8, [0, 5]);
    const { id } = await dlsm.migrateDetached(source, destination, ["--hold-cutover"]);
    await dlsm.until(id, (found) => found?.phase === "released", "all is here");
    await killParts(dlsm, ["driver", "engine"]);
    const journal = destinationJournal(join(dlsm.environment.DLSM_STATE_DIR, "destination", id));
    journal.write({ ...journal.read()!, state: "finishing" });
    rmSync(dlsm.environment.DLSM_RUN_DIR, { recursive: true });
    await within(dlsm.ok("resume", id), "it resumes");
    assert.ok(readFileSync(source).equals(readFileSync(destination)));
    await dlsm.nothingLeft();
  } finally {
    await dlsm.close();
  }
});

withTgt("before the hand-off: it is as if it had just been attached", async () => {
  const dlsm = new Dlsm();
  try {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeSectorDisk(source, 8, [0, 5]);
    const { id, socket } = await dlsm.migrateDetached(source, destination, ["--handoff", "manual"]);
    await killParts(dlsm, ["driver", "engine", "tgtd"]);
    rmSync(dlsm.environment.DLSM_RUN_DIR, { recursive: true });
    // The source lives on, and is not frozen yet.
    makeSectorDisk(source, 8, [0, 3]);
    await dlsm.ok("resume", id, "--detach");
    assert.is((await dlsm.status(id))?.phase, "attached");
    const client = await NbdClient.connect(socket);
    assert.ok((await client.read(0, 8 * MiB)).equals(readFileSync(source)));
    client.close();
    await dlsm.ok("abort", id);
    await dlsm.nothingLeft();
    assert.not.ok(readdirSync(dlsm.folder).includes("dst.img"));
  } finally {
    await dlsm.close();
  }
});

test.run();
