/** The checks of a destination, on a sample disk with and without damage. */
import { copyFileSync, readFileSync, statSync, truncateSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkContent, checkFiles, checkFileSystem, checkSource } from "../../src/demo/checks.ts";
import { ExpectedDisk } from "../../src/demo/expected-disk.ts";
import { layoutOf } from "../../src/demo/layout.ts";
import { findPrograms, type Programs } from "../../src/demo/programs.ts";
import { Random } from "../../src/demo/random.ts";
import { makeSampleDisk, type SampleDisk } from "../../src/demo/sample-disk.ts";
import { needing } from "../helpers/needs.ts";
import { tempFolder } from "../helpers/temp.ts";

const test = suite("demo checks");
const withTools = needing(test, ["tgtd", "qemu-io", "mke2fs", "e2fsck", "debugfs"]);
const MiB = 1024 * 1024;
const { signal } = new AbortController();

async function flip(path: string, offset: number): Promise<void> {
  const file = await open(path, "r+");
  try {
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, offset);
    byte[0] ^= 1;
    await file.write(byte, 0, 1, offset);
  } finally {
    await file.close();
  }
}

/** Names of the checks that fail. */
async function failing(disk: SampleDisk, programs: Programs, folder: string): Promise<string[]> {
  const surroundings = { programs, folder, signal };
  const expected = await ExpectedDisk.open(disk.path);
  try {
    const checks = [
      await checkFileSystem("copy.img", surroundings),
      await checkFiles("copy.img", disk.checksums, surroundings),
      await checkContent(expected, join(folder, "copy.img"), disk.layout.sizeBytes, signal),
      await checkSource(disk, signal),
    ];
    return checks.filter(({ isPassed }) => !isPassed).map(({ name }) => name);
  } finally {
    await expected.close();
  }
}

withTools("a flipped byte is found wherever it is", async () => {
  const folder = tempFolder("d");
  const programs = findPrograms();
  const layout = layoutOf(64 * MiB);
  const disk = await makeSampleDisk(layout, { programs, folder, signal });
  const copy = join(folder, "copy.img");

  assert.ok(statSync(disk.path).blocks * 512 < 40 * MiB, "the source has holes");
  assert.ok(
    disk.dataPieces.length >= 20 && disk.dataPieces.every((at) => at + MiB <= layout.fileSystemBytes),
  );
  copyFileSync(disk.path, copy);
  assert.equal(await failing(disk, programs, folder), []);

  // In the first file's data, which begins with the first bytes of its random ones.
  const inFile = readFileSync(copy).indexOf(new Random("sample disk").bytes(64));
  assert.ok(inFile > 0 && inFile < layout.fileSystemBytes);
  await flip(copy, inFile + 63);
  assert.equal(await failing(disk, programs, folder), ["files", "content"]);
  await flip(copy, inFile + 63);

  // In the superblock (the volume's name), which has a checksum of its own.
  await flip(copy, 1024 + 120);
  assert.equal(await failing(disk, programs, folder), ["fileSystem", "content"]);
  await flip(copy, 1024 + 120);

  await flip(copy, layout.sizeBytes - 1);
  assert.equal(await failing(disk, programs, folder), ["content"]);
  await flip(copy, layout.sizeBytes - 1);

  truncateSync(copy, layout.sizeBytes - 512);
  assert.equal(await failing(disk, programs, folder), ["content"]);
  truncateSync(copy, layout.sizeBytes);

  // Behind the area's data there are zeroes, on both disks.
  await flip(disk.path, layout.sizeBytes - 1);
  assert.equal(await failing(disk, programs, folder), ["content", "source"]);
});

test.run();
