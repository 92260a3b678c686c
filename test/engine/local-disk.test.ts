import { closeSync, ftruncateSync, openSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { openLocalDisk } from "../../src/engine/local-disk.ts";
import { attachLoop, needingLoop } from "../helpers/loop-device.ts";
import { tempFolder } from "../helpers/temp.ts";

const test = suite("local disk");
const withLoop = await needingLoop(test, test as unknown as typeof test.skip);
const MiB = 1024 * 1024;

function sparseFile(sizeBytes: number): string {
  const path = join(tempFolder(), "disk");
  const descriptor = openSync(path, "w");
  ftruncateSync(descriptor, sizeBytes);
  closeSync(descriptor);
  return path;
}

test("writes and reads anywhere; what was never written is a hole", async () => {
  const path = sparseFile(4 * MiB);
  const disk = openLocalDisk(path);
  await disk.write(MiB + 100, new Uint8Array(5000).fill(7));
  const data = new Uint8Array(5002);
  await disk.read(MiB + 99, data);
  assert.is(data[0], 0);
  assert.is(data[1], 7);
  assert.is(data[5000], 7);
  assert.is(data[5001], 0);
  await disk.sync();
  assert.equal(disk.extentAt(0, 4 * MiB), { isHole: true, end: MiB });
  assert.is(disk.extentAt(MiB, 4 * MiB).isHole, false);
  assert.equal(disk.extentAt(2 * MiB, 3 * MiB), { isHole: true, end: 3 * MiB });
  await disk.close();
});

test("zero: punches holes, or keeps the space, with any alignment", async () => {
  for (const keepAllocated of [false, true]) {
    const path = sparseFile(4 * MiB);
    writeFileSync(path, Buffer.alloc(4 * MiB, 9));
    const disk = openLocalDisk(path);
    await disk.zero(MiB + 100, 2 * MiB, keepAllocated);
    await disk.sync();
    const expected = Buffer.alloc(4 * MiB, 9).fill(0, MiB + 100, 3 * MiB + 100);
    assert.is(Buffer.compare(readFileSync(path), expected), 0);
    const isSmaller = statSync(path).blocks * 512 < 3 * MiB;
    assert.is(isSmaller, !keepAllocated);
    await disk.close();
  }
});

test("a read beyond the end is an error, not silence", async () => {
  const disk = openLocalDisk(sparseFile(8192));
  await disk.read(4096, new Uint8Array(8192)).then(
    () => assert.unreachable(),
    (error) => assert.is(error.code, "EIO"),
  );
  await disk.close();
});

withLoop("a device: zeroing parts of sectors does not keep it from giving space back later", async () => {
  const backing = join(tempFolder(), "device");
  const expected = Buffer.alloc(8 * MiB, 9);
  writeFileSync(backing, expected);
  const device = await attachLoop(backing, 4096);
  try {
    const disk = openLocalDisk(device.path);
    await disk.zero(100, 100, false);
    await disk.zero(MiB - 100, 4096, true);
    await disk.zero(2 * MiB, 4 * MiB, false);
    await disk.sync();
    await disk.close();
  } finally {
    await device.detach();
  }
  expected.fill(0, 100, 200).fill(0, MiB - 100, MiB + 3996).fill(0, 2 * MiB, 6 * MiB);
  assert.is(Buffer.compare(readFileSync(backing), expected), 0);
  assert.ok(statSync(backing).blocks * 512 <= 4 * MiB + 65536);
});

test.run();
