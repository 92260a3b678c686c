/** What the engine counts: exact numbers, and the same as tgtd's. */
import { Buffer } from "node:buffer";
import { appendFileSync, readFileSync, rmSync, statSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { DiskStatus } from "../../src/report/mod.ts";
import { Random } from "../engine/memory.ts";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { type Detached, Dlsm, kill } from "../helpers/dlsm.ts";
import { attachLoop, needingLoop } from "../helpers/loop-device.ts";
import { needing } from "../helpers/needs.ts";
import { compare, type Load, runGuest, wholeArea } from "./model-load.ts";
import { NbdClient } from "./nbd-client.ts";
import { nbdMap, runTool, states } from "./nbd-tools.ts";
import { fetchedBytes, lbaStatusBytes, tgtdReads, untilTgtdAgrees } from "./tgtd-counters.ts";

const test = suite("counters");
const withTools = needing(test, ["tgtd", "nbdinfo", "nbdcopy"]);
const withLoop = await needingLoop(test, withTools);

async function withDlsm(work: (dlsm: Dlsm) => Promise<void>): Promise<void> {
  const dlsm = new Dlsm();
  try {
    await work(dlsm);
  } finally {
    await dlsm.close();
  }
}

/**
 * Attaches, and ends the driver in the background: so nobody takes the export away when all is synced, and
 * tgtd's counters can be read to the end. `resume` brings another driver.
 */
async function attachAlone(dlsm: Dlsm, source: string, destination: string, options: readonly string[]) {
  const migration = await dlsm.migrateDetached(source, destination, ["--handoff", "manual", ...options]);
  await dlsm.until(migration.id, () => driversOf(dlsm, migration).length === 1, "a driver runs");
  for (const { pid } of driversOf(dlsm, migration)) kill(pid, "SIGKILL");
  await dlsm.until(migration.id, () => driversOf(dlsm, migration).length === 0, "its end");
  return migration;
}

function driversOf(dlsm: Dlsm, { id }: Detached) {
  return dlsm.processes().filter(({ command }) => command.endsWith(` drive ${id}`));
}

async function untilSynced(dlsm: Dlsm, { id }: Detached): Promise<void> {
  await dlsm.until(id, (status) => status?.phase === "synced", "synced");
}

/** The driver's part: release and cut-over. */
async function finish(dlsm: Dlsm, { id }: Detached): Promise<void> {
  await dlsm.ok("resume", id, "--detach");
  await dlsm.nothingLeft();
}

function checkCounts(disk: DiskStatus, expected: Partial<DiskStatus>): void {
  const actual = Object.fromEntries(Object.keys(expected).map((key) => [key, disk[key as keyof DiskStatus]]));
  assert.equal(actual, expected);
  assert.is(disk.refetchedBytes, 0);
}

withTools(
  "overwritten blocks and holes never cross; all the rest does once, as tgtd says too",
  () =>
    withDlsm(async (dlsm) => {
      const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
      const dataMiB = [0, 1, 2, 3, 4, 5, 6, 7, 20, 21, 30];
      makeDisk(source, 48, dataMiB);
      const model = readFileSync(source);
      // The sync brings its first piece and then waits for hours.
      const migration = await attachAlone(dlsm, source, destination, ["--bwlimit", "1"]);
      const { id, socket, uri } = migration;
      const client = await NbdClient.connect(socket);
      const before = await tgtdReads(dlsm, id);
      const piece = 65536;
      await dlsm.ok("activate", id);
      await dlsm.until(id, (status) => status?.disks[0].fetchedBytes.sync === piece, "the first piece");

      // Whole blocks, in data and in a hole, and in what is here already.
      await client.write(2 * MiB, Buffer.alloc(MiB, 1));
      await client.zero(3 * MiB, MiB / 2);
      await client.trim(4 * MiB, MiB / 2);
      await client.write(10 * MiB, Buffer.alloc(MiB, 2));
      await client.write(0, Buffer.alloc(piece, 3));
      model.fill(1, 2 * MiB, 3 * MiB).fill(0, 3 * MiB, 3.5 * MiB).fill(0, 4 * MiB, 4.5 * MiB);
      model.fill(2, 10 * MiB, 11 * MiB).fill(3, 0, piece);
      const overwrittenBytes = 3 * MiB;
      let disk = await untilTgtdAgrees(dlsm, id, before, lbaStatusBytes);
      checkCounts(disk, {
        overwrittenBytes,
        writtenBytes: overwrittenBytes + piece,
        residentBytes: overwrittenBytes + piece,
        fetchedBytes: { demand: 0, readahead: 0, sync: piece },
        holeBytes: 0,
      });

      // A part of a block: that block is fetched, and counts as written, not as overwritten. In a hole nothing is.
      await client.write(6 * MiB + 10, Buffer.alloc(20, 4));
      await client.write(12 * MiB - 1, Buffer.alloc(2, 5));
      // A read of 4 KiB brings 64 KiB; a large one just itself; one of a hole nothing.
      compare(await client.read(7 * MiB, 4096), model, 7 * MiB);
      compare(await client.read(20 * MiB, 128 * 1024), model, 20 * MiB);
      compare(await client.read(40 * MiB, MiB), model, 40 * MiB);
      await client.prefetch(42 * MiB, MiB);
      model.fill(4, 6 * MiB + 10, 6 * MiB + 30).fill(5, 12 * MiB - 1, 12 * MiB + 1);
      disk = await untilTgtdAgrees(dlsm, id, before, lbaStatusBytes);
      const fetched = { demand: 4096 + 4096 + 128 * 1024, readahead: piece - 4096, sync: piece };
      checkCounts(disk, {
        overwrittenBytes,
        writtenBytes: overwrittenBytes + piece + 3 * 4096,
        fetchedBytes: fetched,
        holeBytes: 2 * 4096 + 2 * MiB,
      });

      // All the rest, with the driver away: what is synced stays attached to its source.
      client.close();
      await dlsm.ok("limit", id, "off");
      await untilSynced(dlsm, migration);
      disk = await untilTgtdAgrees(dlsm, id, before, lbaStatusBytes);
      const dataBytes = dataMiB.length * MiB;
      // Two of the three overwritten MiB were data on the source.
      const sync = dataBytes - 2 * MiB - fetched.demand - fetched.readahead;
      checkCounts(disk, {
        overwrittenBytes,
        residentBytes: 48 * MiB,
        fetchedBytes: { ...fetched, sync },
        holeBytes: 48 * MiB - dataBytes - MiB,
      });
      const map = await nbdMap(uri, "dlsm:residency");
      assert.ok(map.every(([, , state]) => state !== states.absent));
      await finish(dlsm, migration);
      compare(readFileSync(destination), model, 0, "the destination");
      assert.ok(statSync(destination).blocks * 512 < 15 * MiB, "holes stay holes");
    }),
);

/** Reads all of a range in random order with many requests under way, none on the borders of blocks. */
async function readAll(
  client: NbdClient,
  model: Buffer,
  from: number,
  to: number,
  seed: number,
): Promise<void> {
  const stepBytes = 50_000;
  const offsets = Array.from(
    { length: Math.ceil((to - from) / stepBytes) },
    (_, index) => from + index * stepBytes,
  );
  const random = new Random(seed);
  for (let at = offsets.length - 1; at > 0; at--) {
    const other = random.below(at + 1);
    [offsets[at], offsets[other]] = [offsets[other], offsets[at]];
  }
  const lane = async () => {
    for (let at = offsets.pop(); at !== undefined; at = offsets.pop()) {
      compare(await client.read(at, Math.min(stepBytes, to - at)), model, at);
    }
  };
  await Promise.all(Array.from({ length: 16 }, lane));
}

withTools(
  "demand, read-ahead and sync at once, writes among them: still each block crosses once",
  () =>
    withDlsm(async (dlsm) => {
      const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
      makeDisk(
        source,
        96,
        Array.from({ length: 96 }, (_, index) => index).filter((index) => index % 4 !== 3),
      );
      const model = readFileSync(source);
      const migration = await attachAlone(dlsm, source, destination, []);
      const { id, socket, uri } = migration;
      const before = await tgtdReads(dlsm, id);
      const [guestsEnd, gates, readersFrom] = [24 * MiB, 24 * MiB, 28 * MiB];
      const load: Load = {
        model,
        blockBytes: 4096,
        untouched: { offset: readersFrom, length: model.length - readersFrom },
        depth: 8,
        requests: 300,
        isOver: () => true,
      };
      // Everybody's first request is a write, which waits for the hand-off: then all begin together with the sync.
      const user = async (index: number, work: (client: NbdClient) => Promise<unknown>) => {
        const client = await NbdClient.connect(socket);
        await client.zero(gates + index * 4096, 4096);
        model.fill(0, gates + index * 4096, gates + (index + 1) * 4096);
        await work(client);
        client.close();
      };
      const guest = (client: NbdClient, index: number) =>
        runGuest(
          client,
          wholeArea(guestsEnd / 4 * index, guestsEnd / 4 * (index + 1)),
          new Random(index),
          load,
        );
      const users = Promise.all([
        ...[0, 1, 2, 3].map((index) => user(index, (client) => guest(client, index))),
        ...[4, 5, 6].map((index) =>
          user(index, (client) => readAll(client, model, readersFrom, model.length, index))
        ),
      ]);
      // What fails first is what is told.
      users.catch(() => {});
      await dlsm.ok("activate", id);
      await runTool("nbdcopy", "--connections=2", uri, dlsm.path("copy"));
      compare(readFileSync(dlsm.path("copy")).subarray(readersFrom), model, readersFrom, "the copy");
      await users;
      await untilSynced(dlsm, migration);
      const disk = await untilTgtdAgrees(dlsm, id, before, lbaStatusBytes);
      assert.is(disk.refetchedBytes, 0);
      const { demand, readahead, sync } = disk.fetchedBytes;
      assert.ok(demand > 0 && readahead > 0 && sync > 0, JSON.stringify(disk));
      assert.is(fetchedBytes(disk) + disk.holeBytes + disk.overwrittenBytes, model.length);
      assert.ok(disk.holeBytes >= 17 * MiB, "the holes of the part that nobody writes");
      await finish(dlsm, migration);
      compare(readFileSync(destination), model, 0, "the destination");
    }),
);

withTools(
  "a disk that ends within a block: its end is read, written and synced as it is",
  () =>
    withDlsm(async (dlsm) => {
      const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
      const tailBytes = 3 * 512;
      makeDisk(source, 1, [0]);
      appendFileSync(source, Buffer.alloc(tailBytes, 0x77));
      for (const firstUse of ["read", "write", "sync"]) {
        const model = readFileSync(source);
        const migration = await attachAlone(dlsm, source, destination, ["--bwlimit", "1"]);
        const { id, socket } = migration;
        const before = await tgtdReads(dlsm, id);
        await dlsm.ok("activate", id);
        await dlsm.until(id, (status) => status?.disks[0].fetchedBytes.sync === 65536, "the first piece");
        const client = await NbdClient.connect(socket);
        if (firstUse === "read") compare(await client.read(MiB + 1, 1000), model, MiB + 1);
        if (firstUse === "write") {
          await client.write(model.length - 1, Buffer.from([0x88]));
          model[model.length - 1] = 0x88;
        }
        const demand = firstUse === "sync" ? 0 : tailBytes;
        checkCounts(await untilTgtdAgrees(dlsm, id, before, lbaStatusBytes), {
          fetchedBytes: { demand, readahead: 0, sync: 65536 },
        });
        client.close();
        await dlsm.ok("limit", id, "off");
        await untilSynced(dlsm, migration);
        checkCounts(await untilTgtdAgrees(dlsm, id, before, lbaStatusBytes), {
          fetchedBytes: { demand, readahead: 0, sync: model.length - demand },
          residentBytes: model.length,
        });
        await finish(dlsm, migration);
        compare(readFileSync(destination), model, 0, "the destination");
        rmSync(destination);
      }
    }),
);

withLoop(
  "a block device, whose holes tgt does not tell: everything crosses once, and that is all",
  () =>
    withDlsm(async (dlsm) => {
      const [backing, destination] = [dlsm.path("device.img"), dlsm.path("dst.img")];
      makeDisk(backing, 16, [0, 15]);
      appendFileSync(backing, Buffer.alloc(3 * 512, 0x77));
      const content = readFileSync(backing);
      const device = await attachLoop(backing);
      try {
        const migration = await attachAlone(dlsm, device.path, destination, ["--block-size", "64KiB"]);
        const { id } = migration;
        const before = await tgtdReads(dlsm, id);
        await dlsm.ok("activate", id);
        await untilSynced(dlsm, migration);
        const disk = await untilTgtdAgrees(dlsm, id, before, 0);
        checkCounts(disk, {
          residentBytes: content.length,
          fetchedBytes: { demand: 0, readahead: 0, sync: content.length },
          holeBytes: 0,
          overwrittenBytes: 0,
        });
        await finish(dlsm, migration);
        compare(readFileSync(destination), content, 0, "the destination");
      } finally {
        await device.detach();
      }
    }),
);

test.run();
