/** Faults of the engine that its simulation found (test/simulation), each alone and in slow motion. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { systemClock } from "../../src/engine/clock.ts";
import { planes, residency } from "../../src/engine/residency.ts";
import { ResidencyStore } from "../../src/engine/residency-store.ts";
import { Volume, type VolumeOptions } from "../../src/engine/volume.ts";
import { until } from "../helpers/until.ts";
import { CrashFile, Killed } from "./crash-file.ts";
import { MemoryDisk, MemorySource, Random } from "./memory.ts";

const test = suite("found by simulation");
const blockBytes = 4096;
const sizeBytes = 16 * blockBytes;
const identity = { sizeBytes, blockBytes, volumeId: "v", bootId: "b" };
const nine = new Uint8Array(blockBytes).fill(9);

async function makeStore() {
  const files = { durable: new CrashFile(), live: new CrashFile() };
  return { files, store: await ResidencyStore.create(files, { ...identity, localZero: true }) };
}

/** An active volume whose sync rests. */
async function active(store: ResidencyStore, disk?: MemoryDisk, over: Partial<VolumeOptions> = {}) {
  const random = new Random(1);
  const source = new MemorySource(random.bytes(sizeBytes), random);
  const local = disk ?? new MemoryDisk(new Uint8Array(sizeBytes), random);
  const geometry = { sizeBytes, blockBytes };
  const volume = new Volume({
    geometry,
    source,
    disk: local,
    store,
    clock: systemClock,
    activation: "explicit",
    demandBytes: blockBytes,
    ...over,
  });
  volume.sync.pause();
  await volume.activate();
  return { source, disk: local, volume };
}

test("the first flush after an engine was killed makes durable what that engine had written", async () => {
  const { files, store } = await makeStore();
  const { volume, disk } = await active(store);
  await volume.write(0, nine, false);
  await volume.flush();
  // Its mark is durable already; the data is in the page cache when the engine dies.
  await volume.write(0, nine, false);
  const syncs = disk.syncs;
  const next = await active(await ResidencyStore.open(files, identity), disk);
  await next.volume.flush();
  assert.is(disk.syncs, syncs + 1);
});

test("what a write that failed has left here is made durable by the next flush", async () => {
  const { volume, disk } = await active((await makeStore()).store);
  await volume.write(0, nine, false);
  await volume.flush();
  const syncs = disk.syncs;
  disk.writeError = "ENOSPC";
  await volume.write(0, nine, false).then(() => assert.unreachable(), () => {});
  disk.writeError = undefined;
  await volume.flush();
  assert.is(disk.syncs, syncs + 1);
});

test("an engine killed at any write of a mark: what the next one believes, it makes durable", async () => {
  for (let writesLeft = 0; writesLeft < 4; writesLeft++) {
    const { files, store } = await makeStore();
    await store.activate();
    store.mark(0, 4, planes.crossed);
    await store.checkpoint(() => Promise.resolve());
    files.live.writesLeft = writesLeft;
    try {
      store.mark(4, 4, planes.crossed);
    } catch (error) {
      assert.instance(error, Killed);
    }
    files.live.writesLeft = Infinity;
    const next = await ResidencyStore.open(files, identity);
    await next.checkpoint(() => Promise.resolve());
    const believed = next.map.residentCount;
    const rebooted = { durable: new CrashFile(files.durable.bytes), live: new CrashFile() };
    const { map } = await ResidencyStore.open(rebooted, { ...identity, bootId: "later" }, true);
    assert.is(map.residentCount, believed, `killed before write ${writesLeft}`);
  }
});

test("a write that waits while the volume is closed does not come after the map is", async () => {
  for (const activation of ["explicit", "first-write"] as const) {
    const { files, store } = await makeStore();
    const random = new Random(1);
    const disk = new MemoryDisk(new Uint8Array(sizeBytes), random);
    const source = new MemorySource(random.bytes(sizeBytes), random);
    const geometry = { sizeBytes, blockBytes };
    const options = { geometry, source, disk, store, clock: systemClock, demandBytes: blockBytes };
    const volume = new Volume({ ...options, activation });
    volume.sync.pause();
    const written = volume.write(0, nine, false).then(() => "written", (error) => error.code);
    const activated = volume.activate();
    const closed = volume.close();
    await Promise.all([activated, closed]);
    const late = volume.write(blockBytes, nine, false).then(() => "written", (error) => error.code);
    assert.equal([await written, await late], ["ECANCELED", "ECANCELED"], activation);
    assert.ok(disk.bytes.every((byte) => byte === 0), "nothing came");
    const next = await ResidencyStore.open(files, identity);
    assert.equal([next.activated, next.localZero, next.map.residentCount], [true, true, 0]);
  }
});

test("a demand that waits in the queue does not fetch what is written here meanwhile", async () => {
  const { volume, source } = await active((await makeStore()).store, undefined, {
    fetchLimits: { demandFetches: 1 },
  });
  const outage = Promise.withResolvers<void>();
  source.outage = outage.promise;
  const first = volume.read(0, blockBytes);
  const second = volume.read(8 * blockBytes, 2 * blockBytes);
  await volume.write(8 * blockBytes, nine, false);
  outage.resolve();
  assert.is(Buffer.concat(await first).compare(source.bytes.subarray(0, blockBytes)), 0);
  const bytes = Buffer.concat(await second);
  assert.is(bytes.subarray(0, blockBytes).compare(nine), 0);
  assert.is(bytes.subarray(blockBytes).compare(source.bytes.subarray(9 * blockBytes, 10 * blockBytes)), 0);
  assert.is(source.reads[8 * 8], 0, "it did not cross");
  assert.is(source.reads[9 * 8], 1);
});

test("a read that waits for a source which then refuses is answered from here, if all of it was written", async () => {
  const { store } = await makeStore();
  const { volume, source } = await active(store);
  const outage = Promise.withResolvers<void>();
  source.outage = outage.promise;
  const read = volume.read(0, blockBytes);
  await volume.write(0, nine, false);
  assert.is(store.map.stateOf(0), residency.written);
  source.badOffsets.add(0);
  outage.resolve();
  assert.is(Buffer.concat(await read).compare(nine), 0);
});

test("a read in a hole is answered although the map cannot be written, and nothing spins", async () => {
  const { files, store } = await makeStore();
  const { volume, source } = await active(store);
  source.bytes.fill(0, 0, 8 * blockBytes);
  source.holes = [{ offsetBytes: 0, lengthBytes: 8 * blockBytes, mapped: false }];
  files.live.failing = new Error("no space left");
  volume.resume();
  await until(() => volume.sync.state === "stopped", "the sync has met the hole");
  const bytes = Buffer.concat(await volume.read(0, 10 * blockBytes));
  assert.is(bytes.compare(source.bytes.subarray(0, 10 * blockBytes)), 0);
});

test.run();
