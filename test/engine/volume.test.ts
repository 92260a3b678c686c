import { suite } from "uvu";
import * as assert from "uvu/assert";
import { systemClock } from "../../src/engine/clock.ts";
import { residency } from "../../src/engine/residency.ts";
import { ResidencyStore } from "../../src/engine/residency-store.ts";
import { Volume, type VolumeOptions } from "../../src/engine/volume.ts";
import { jitter, MemoryDisk, MemoryMapFile, MemorySource, Random } from "./memory.ts";

const blockBytes = 4096;

async function setUp(
  seed: number,
  over: Partial<VolumeOptions> & { sizeBytes?: number; localZero?: boolean } = {},
) {
  const random = new Random(seed);
  const sizeBytes = over.sizeBytes ?? 200 * blockBytes + 1536;
  const geometry = { sizeBytes, blockBytes };
  const source = new MemorySource(random.bytes(sizeBytes), random);
  const localZero = over.localZero ?? true;
  const disk = new MemoryDisk(localZero ? new Uint8Array(sizeBytes) : random.bytes(sizeBytes), random);
  const files = { durable: new MemoryMapFile(), live: new MemoryMapFile() };
  const store = await ResidencyStore.create(files, { ...geometry, volumeId: "v", bootId: "b", localZero });
  const volume = new Volume({
    geometry,
    source,
    disk,
    store,
    clock: systemClock,
    activation: "explicit",
    demandBytes: 16 * 1024,
    syncLimits: { chunkBytes: 32 * 1024, fetches: 3, inFlightBytes: 64 * 1024, retryMs: 1 },
    ...over,
  });
  return { random, source, disk, store, volume, sizeBytes, files };
}

async function readAll(volume: Volume, offset: number, length: number): Promise<Uint8Array> {
  return new Uint8Array(Buffer.concat(await volume.read(offset, length)));
}

function same(actual: Uint8Array, expected: Uint8Array, what: string): void {
  if (Buffer.compare(actual, expected) === 0) return;
  const at = actual.findIndex((byte, index) => byte !== expected[index]);
  assert.unreachable(`${what}: differs at ${at}: ${actual[at]}, not ${expected[at]}`);
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let turn = 0; turn < 20_000; turn++) {
    if (condition()) return;
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  assert.unreachable(`never: ${what}`);
}

const test = suite("volume");

test("before activation: reads pass through, see later changes of the source, and keep nothing", async () => {
  const { volume, source, disk, store, files } = await setUp(1);
  same(await readAll(volume, 1000, 9000), source.bytes.slice(1000, 10_000), "first");
  source.bytes.fill(7, 0, 20_000);
  same(await readAll(volume, 1000, 9000), source.bytes.slice(1000, 10_000), "after a change");
  await volume.prefetch(0, 65_536);
  await volume.flush();
  assert.is(store.map.residentCount, 0);
  assert.ok(disk.bytes.every((byte) => byte === 0));
  assert.is(files.durable.syncs, 1);
});

test("explicit: a write before activation waits; first-write: it activates durably first", async () => {
  const { volume, disk } = await setUp(2);
  let isDone = false;
  const write = volume.write(0, new Uint8Array(4096).fill(9), false).then(() => isDone = true);
  for (let turn = 0; turn < 50; turn++) await new Promise<void>((resolve) => setImmediate(resolve));
  assert.is(isDone, false);
  assert.is(disk.bytes[0], 0);
  volume.sync.pause();
  await volume.activate();
  await write;
  assert.is(disk.bytes[0], 9);

  const other = await setUp(3, { activation: "first-write" });
  const syncsBefore = other.files.durable.syncs;
  await other.volume.write(0, new Uint8Array(4096).fill(9), false);
  assert.is(other.volume.activated, true);
  assert.ok(other.files.durable.syncs > syncsBefore);
});

test("explicit: a write whose client is gone before activation never happens", async () => {
  const { volume, disk, source } = await setUp(12);
  const client = new AbortController();
  const writes = [
    volume.write(0, new Uint8Array(4096).fill(9), false, client.signal),
    volume.trim(8192, 4096, false, client.signal),
    volume.writeZeroes(16_384, 4096, { noHole: false, fastZero: false, fua: false }, client.signal),
  ];
  client.abort();
  for (const write of writes) {
    await write.then(() => assert.unreachable(), (error) => assert.is(error.code, "ECANCELED"));
  }
  await volume.write(4096, new Uint8Array(4096), false, client.signal).then(
    () => assert.unreachable(),
    () => {},
  );
  await volume.activate();
  await until(() => volume.isSynced, "synced");
  same(disk.bytes, source.bytes, "the source's content");
});

test("a refused activation: neither a command nor a first write makes the hand-off", async () => {
  const { volume, disk } = await setUp(13, { activation: "first-write" });
  assert.is(volume.refuseActivation(), true);
  const client = new AbortController();
  const write = volume.write(0, new Uint8Array(4096).fill(9), false, client.signal);
  await volume.activate().then(
    () => assert.unreachable(),
    (error) => assert.match(error.message, /given up/),
  );
  assert.is(volume.refuseActivation(), true, "any number of times");
  assert.equal([volume.activated, disk.bytes[0]], [false, 0]);
  client.abort();
  await write.then(() => assert.unreachable(), (error) => assert.is(error.code, "ECANCELED"));
});

test("an activation is not refused once a write has begun it", async () => {
  const { volume, disk, files } = await setUp(14, { activation: "first-write" });
  const gate = Promise.withResolvers<void>();
  files.durable.sync = () => gate.promise;
  const write = volume.write(0, new Uint8Array(4096).fill(9), false);
  assert.is(volume.refuseActivation(), false, "it is being written down");
  gate.resolve();
  await write;
  assert.is(volume.refuseActivation(), false);
  assert.equal([volume.activated, disk.bytes[0]], [true, 9]);
});

test("a pause from before activation holds after it, until it is lifted", async () => {
  const { volume, store } = await setUp(9);
  volume.sync.pause();
  await volume.activate();
  assert.is(volume.sync.state, "paused");
  assert.is(store.map.residentCount, 0);
  volume.resume();
  await until(() => volume.isSynced, "synced");

  const other = await setUp(10);
  other.volume.sync.pause();
  other.volume.resume();
  assert.is(other.volume.sync.state, "idle");
  await other.volume.activate();
  await until(() => other.volume.isSynced, "synced");
});

test("nothing is kept before the activation is durable", async () => {
  const { volume, files, store } = await setUp(4);
  const gate = Promise.withResolvers<void>();
  files.durable.sync = () => gate.promise;
  const activating = volume.activate();
  await readAll(volume, 0, 8192);
  assert.is(store.map.residentCount, 0);
  gate.resolve();
  await activating;
  await until(() => store.map.residentCount > 0, "kept");
});

test("whole-block writes never wait for the network; a part of an absent block fetches that block only", async () => {
  const { volume, source, store, disk } = await setUp(5);
  await volume.activate();
  volume.sync.pause();
  await until(() => volume.sync.state === "paused", "paused");
  const gate = Promise.withResolvers<void>();
  source.outage = gate.promise;
  const before = store.map.residentCount;
  const free = store.map.find(residency.absent, 100);
  await volume.write(free * blockBytes, new Uint8Array(8192).fill(5), false);
  assert.is(store.map.residentCount, before + 2);
  const part = free + 10;
  const writing = volume.write(part * blockBytes + 100, new Uint8Array(50).fill(6), false);
  gate.resolve();
  await writing;
  assert.is(store.map.stateOf(part), residency.written);
  assert.is(store.map.stateOf(part + 1), residency.absent);
  assert.is(store.map.stateOf(part - 1), residency.absent);
  const expected = source.bytes.slice(part * blockBytes, (part + 1) * blockBytes).fill(6, 100, 150);
  same(disk.bytes.slice(part * blockBytes, (part + 1) * blockBytes), expected, "merged block");
});

test("holes: marked where the local disk is zero, zeroed where it is not; unknown gaps are fetched", async () => {
  for (const localZero of [true, false]) {
    const { volume, source, disk, store, sizeBytes } = await setUp(6, { localZero });
    const hole = { offsetBytes: 10 * blockBytes - 512, lengthBytes: 20 * blockBytes, mapped: false };
    source.bytes.fill(0, hole.offsetBytes, hole.offsetBytes + hole.lengthBytes);
    source.holes = [
      { offsetBytes: 0, lengthBytes: 512, mapped: true },
      hole,
      { offsetBytes: 190 * blockBytes, lengthBytes: sizeBytes - 190 * blockBytes, mapped: true },
    ];
    await volume.activate();
    await until(() => volume.isSynced, "synced");
    same(disk.bytes, source.bytes, `localZero ${localZero}`);
    assert.is(store.counters.holeBytes, 19 * blockBytes);
    assert.is(store.counters.syncBytes, sizeBytes - 19 * blockBytes);
    assert.is(Math.max(...source.reads), 1);
  }
});

test("known holes are not fetched: not beside a demand, not for a part of a block, not ahead", async () => {
  const { volume, source, disk, store, sizeBytes } = await setUp(11, { bytesPerSecond: 1 });
  const hole = { offsetBytes: 21 * blockBytes, lengthBytes: 100 * blockBytes, mapped: false };
  source.bytes.fill(0, hole.offsetBytes, hole.offsetBytes + hole.lengthBytes);
  source.holes = [hole, {
    offsetBytes: 121 * blockBytes,
    lengthBytes: sizeBytes - 121 * blockBytes,
    mapped: true,
  }];
  await volume.activate();
  await until(
    () => store.map.residentCount > 0,
    "the first piece of the sync, before which the holes are known",
  );
  // Its window of 16 KiB reaches into the hole, as does what would be read ahead of the next.
  same(
    await readAll(volume, 20 * blockBytes, 4096),
    source.bytes.slice(20 * blockBytes, 21 * blockBytes),
    "read",
  );
  for (let block = 14; block < 20; block++) await readAll(volume, block * blockBytes, blockBytes);
  await volume.prefetch(30 * blockBytes, 10 * blockBytes);
  await volume.write(50 * blockBytes + 7, new Uint8Array(9).fill(1), false);
  assert.is(store.map.stateOf(35), residency.fetched);
  assert.is(store.map.stateOf(50), residency.written);
  same(disk.bytes.slice(50 * blockBytes + 7, 50 * blockBytes + 16), new Uint8Array(9).fill(1), "the write");
  const crossed = source.reads.subarray(21 * 8, 121 * 8);
  assert.ok(crossed.every((count) => count === 0), "a block of the hole crossed");
  assert.is(store.counters.holeBytes, 11 * blockBytes);
  await volume.close();
});

test("what others bring and write ends the sync, though its rate would have it wait for hours", async () => {
  const { volume, store, sizeBytes } = await setUp(12, { bytesPerSecond: 1 });
  await volume.activate();
  await until(() => store.map.residentCount > 0, "the first piece");
  await volume.write(0, new Uint8Array(sizeBytes / 2), false);
  await volume.read(0, sizeBytes);
  await until(() => volume.isSynced, "synced");
  await volume.close();
});

test("a disk that refuses data stops the sync, says why, and goes on when told", async () => {
  const { volume, source, disk } = await setUp(7);
  disk.writeError = "ENOSPC";
  await volume.activate();
  await until(() => volume.sync.state === "stopped", "stopped");
  assert.is((volume.lastError as { code?: string }).code, "ENOSPC");
  same(await readAll(volume, 0, 4096), source.bytes.slice(0, 4096), "absent data is still readable");
  disk.writeError = undefined;
  volume.resume();
  await until(() => volume.isSynced, "synced");
  assert.is(volume.lastError, undefined);
  same(disk.bytes, source.bytes, "all");
});

test("what the source cannot read fails there and nowhere else, and is tried again", async () => {
  const { volume, source, disk } = await setUp(8);
  source.badOffsets.add(50 * blockBytes);
  await volume.activate();
  await until(() => volume.sync.lastError !== undefined, "an error");
  await volume.read(50 * blockBytes, 4096).then(
    () => assert.unreachable(),
    (error) => assert.is(error.code, "EIO"),
  );
  source.badOffsets.clear();
  await until(() => volume.isSynced, "synced");
  same(disk.bytes, source.bytes, "all");
});

const runFolderFull = Object.assign(new Error("no space left on the run folder"), { code: "ENOSPC" });

test("what was fetched counts as written before it is overwritten, what is absent afterwards", async () => {
  const { volume, disk, store } = await setUp(17);
  volume.sync.pause();
  await volume.activate();
  await readAll(volume, 4 * blockBytes, 4 * blockBytes);
  const { promise, resolve } = Promise.withResolvers<void>();
  disk.gates.set(2 * blockBytes + 512, promise);
  const write = volume.write(2 * blockBytes + 512, new Uint8Array(4 * blockBytes).fill(9), false);
  await until(() => volume.claims.size > 0, "it is being written");
  for (let turn = 0; turn < 50; turn++) await new Promise<void>((done) => setImmediate(done));
  const states = () => [2, 3, 4, 5, 6, 7].map((block) => store.map.stateOf(block));
  const { absent, fetched, written } = residency;
  // Killed here: the disk may have any part of it.
  assert.equal(states(), [written, absent, written, written, written, fetched]);
  resolve();
  await write;
  assert.equal(states(), [written, written, written, written, written, fetched]);
});

test("holes that cannot be marked stop the sync, not the engine, wherever they are filled", async () => {
  for (const localZero of [true, false]) {
    const { volume, source, disk, files } = await setUp(13, { localZero });
    source.bytes.fill(0, 0, 90 * blockBytes);
    source.holes = [{ offsetBytes: 0, lengthBytes: 90 * blockBytes, mapped: false }];
    volume.sync.pause();
    await volume.activate();
    files.live.failing = runFolderFull;
    volume.resume();
    await until(() => volume.sync.state === "stopped", "stopped");
    assert.is(volume.lastError, runFolderFull);
    files.live.failing = undefined;
    volume.resume();
    await until(() => volume.isSynced, "synced");
    same(disk.bytes, source.bytes, `localZero ${localZero}`);
  }
});

test("a fetch that cannot be marked is under way until its last write has ended", async () => {
  const { volume, source, disk, files } = await setUp(14);
  volume.sync.pause();
  await volume.activate();
  const outage = Promise.withResolvers<void>();
  source.outage = outage.promise;
  const reading = volume.read(0, 4 * blockBytes);
  // Written while it is being fetched, so that storing begins with marking it.
  await volume.write(2 * blockBytes, new Uint8Array(blockBytes).fill(2), false);
  const slow = Promise.withResolvers<void>();
  disk.gates.set(0, slow.promise);
  files.live.failing = runFolderFull;
  outage.resolve();
  await reading;
  files.live.failing = undefined;
  disk.gates.clear();
  let isWritten = false;
  const writing = volume.write(0, new Uint8Array(blockBytes).fill(3), true).then(() => isWritten = true);
  for (let turn = 0; turn < 50; turn++) await new Promise<void>((resolve) => setImmediate(resolve));
  assert.is(isWritten, false, "the fetch still writes there");
  slow.resolve();
  await writing;
  same(await readAll(volume, 0, blockBytes), new Uint8Array(blockBytes).fill(3), "the newer write");
  volume.sync.close();
});

/** A random guest against a model, while the sync runs; sectors of the model are 512 bytes. */
async function randomRun(seed: number): Promise<void> {
  const localZero = seed % 3 !== 0;
  const { volume, source, disk, store, random, sizeBytes } = await setUp(seed, { localZero });
  const from = random.below(sizeBytes / 2);
  source.bytes.fill(0, from, from + random.below(sizeBytes / 2));
  if (random.chance(0.5)) source.holes = holesOf(source.bytes);
  await volume.activate();
  const model = source.bytes.slice();
  const original = source.bytes.slice();
  // Ranges in use, so that what is checked is never written at the same time.
  const busy: { from: number; to: number }[] = [];

  async function guest(): Promise<void> {
    for (let step = 0; step < 25; step++) {
      await jitter(random, 3);
      const offset = random.chance(0.5)
        ? random.below(sizeBytes / 512) * 512
        : random.chance(0.5)
        ? random.below(Math.floor(sizeBytes / blockBytes)) * blockBytes
        : random.below(sizeBytes);
      const most = random.chance(0.3) ? 40 * blockBytes : 2 * blockBytes;
      const length = Math.min(sizeBytes - offset, 1 + random.below(most));
      const use = { from: offset, to: offset + length };
      if (busy.some((other) => other.from < use.to && use.from < other.to)) continue;
      busy.push(use);
      const kind = random.below(6);
      if (kind <= 1) {
        same(
          await readAll(volume, offset, length),
          model.slice(use.from, use.to),
          `seed ${seed} read ${offset}`,
        );
      } else if (kind === 2) {
        const data = random.bytes(length);
        await volume.write(offset, data, random.chance(0.2));
        model.set(data, offset);
      } else if (kind === 3) {
        await volume.writeZeroes(offset, length, { noHole: random.chance(0.5), fastZero: false, fua: false });
        model.fill(0, use.from, use.to);
      } else if (kind === 4) {
        await volume.trim(offset, length, false);
        const to = use.to === sizeBytes ? sizeBytes : Math.floor(use.to / blockBytes) * blockBytes;
        const first = Math.ceil(use.from / blockBytes) * blockBytes;
        if (first < to) model.fill(0, first, to);
      } else if (random.chance(0.5)) await volume.flush();
      else await volume.prefetch(offset, length);
      busy.splice(busy.indexOf(use), 1);
      if (random.chance(0.1)) volume.sync.pause();
      else if (random.chance(0.2)) volume.sync.start();
    }
  }
  await Promise.all([guest(), guest(), guest(), guest()]);
  volume.sync.start();
  await until(() => volume.isSynced, `seed ${seed} synced`);
  same(disk.bytes, model, `seed ${seed} at the end`);
  same(source.bytes, original, `seed ${seed} source`);
  assert.ok(source.reads.every((count) => count <= 1), `seed ${seed}: a block crossed twice`);
  const { demandBytes, readaheadBytes, syncBytes, refetchedBytes, holeBytes } = store.counters;
  assert.is(refetchedBytes, 0);
  const moved = source.reads.reduce((total, count) => total + count * 512, 0);
  assert.is(demandBytes + readaheadBytes + syncBytes, moved, `seed ${seed}: bytes moved`);
  const unmoved = store.map.overwrittenCount * blockBytes + holeBytes;
  assert.ok(
    Math.abs(sizeBytes - moved - unmoved) < blockBytes,
    `seed ${seed}: ${sizeBytes} ${moved} ${unmoved}`,
  );
}

function holesOf(bytes: Uint8Array): { offsetBytes: number; lengthBytes: number; mapped: boolean }[] {
  const extents = [];
  for (let at = 0; at < bytes.length;) {
    const isZero = bytes.subarray(at, at + 512).every((byte) => byte === 0);
    let end = at + 512;
    while (end < bytes.length && bytes.subarray(end, end + 512).every((byte) => byte === 0) === isZero) {
      end += 512;
    }
    extents.push({ offsetBytes: at, lengthBytes: end - at, mapped: !isZero });
    at = end;
  }
  return extents;
}

test("a random guest sees what a model says while the sync runs, and no block crosses twice", async () => {
  const seeds = process.env.DLSM_SEED
    ? [Number(process.env.DLSM_SEED)]
    : Array.from({ length: 100 }, (_, n) => n + 1);
  for (const seed of seeds) await randomRun(seed);
});

test.run();
