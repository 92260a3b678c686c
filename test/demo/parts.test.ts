/** The demo's parts that run no other program. */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkHashes, checkMovedOnce, checkReads } from "../../src/demo/checks.ts";
import { Account, Reader } from "../../src/demo/clients.ts";
import { ExpectedDisk } from "../../src/demo/expected-disk.ts";
import { layoutOf } from "../../src/demo/layout.ts";
import { checkNothingLeft, killProcessesOf, processesOf } from "../../src/demo/leftovers.ts";
import type { QemuIo } from "../../src/demo/qemu-io.ts";
import { parseAnswer, parseDump } from "../../src/demo/qemu-io-answer.ts";
import { Random } from "../../src/demo/random.ts";
import type { SampleDisk } from "../../src/demo/sample-disk.ts";
import { UsageError } from "../../src/lib/errors.ts";
import { isRunning } from "../../src/lib/process-id.ts";
import type { DiskStatus } from "../../src/report/mod.ts";
import { tempFolder } from "../helpers/temp.ts";

const test = suite("demo parts");
const MiB = 1024 * 1024;

const recorded = `000003e8:  00 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07  ................
000003f8:  07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07  ...:  ab cd.....
00000408:  07 07 00 00 00 00 00 3a  ........
read 40/40 bytes at offset 1000
40 bytes, 1 ops; 00.00 sec (12.242 KiB/sec and 313.3845 ops/sec)
`;

test("parseAnswer, parseDump: what qemu-io 7.2 prints for read -v", () => {
  const answer = parseAnswer(recorded, "read", 1000, 40)!;
  assert.is(answer.latencyMs.toFixed(3), "3.191");
  const expected = Buffer.alloc(40, 7);
  expected.fill(0, 34, 39);
  expected[0] = 0;
  expected[39] = 0x3a;
  assert.is(parseDump(answer.dump, 40)?.toString("hex"), expected.toString("hex"));
});

test("parseAnswer: undefined for an error, another length or another offset", () => {
  assert.is(parseAnswer("read failed: Input/output error\n", "read", 0, 4096), undefined);
  assert.is(parseAnswer(recorded, "read", 1000, 41), undefined);
  assert.is(parseAnswer(recorded, "read", 1001, 40), undefined);
  assert.is(parseAnswer(recorded, "wrote", 1000, 40), undefined);
});

test("parseDump: undefined for a dump that is too short or damaged", () => {
  const { dump } = parseAnswer(recorded, "read", 1000, 40)!;
  assert.is(parseDump(dump, 41), undefined);
  assert.is(parseDump(dump.replace(" 07 07 00", " 07 zz 00"), 40), undefined);
  assert.is(parseDump("", 16), undefined);
});

test("Random: the same for a seed, others for others, and within its limits", () => {
  assert.ok(new Random("a").bytes(64).equals(new Random("a").bytes(64)));
  assert.not(new Random("a").bytes(64).equals(new Random("b").bytes(64)));
  const random = new Random("limits");
  const seen = new Set(Array.from({ length: 1000 }, () => random.below(10)));
  assert.equal([...seen].sort(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test("layoutOf: parts that fit into the disk, two fifths of it data, at every size", () => {
  for (const size of [64 * MiB, 65 * MiB + 17, 100 * MiB, 512 * MiB, 2048 * MiB, 100 * 1024 * MiB]) {
    const layout = layoutOf(size);
    assert.is(layout.sizeBytes, Math.floor(size / MiB) * MiB);
    assert.is(layout.fileSystemBytes + layout.areaBytes, layout.sizeBytes);
    assert.is(layout.areaBytes % (16 * 4096), 0, "sixteenths of the area are whole blocks");
    const share = layout.dataBytes / layout.sizeBytes;
    assert.ok(share > 0.3 && share < 0.45, `${share} of ${size} is data`);
    assert.is(new Set(layout.files.map(({ path }) => path)).size, layout.files.length);
  }
  assert.throws(() => layoutOf(64 * MiB - 1), (error: unknown) => error instanceof UsageError);
});

test("ExpectedDisk: the last write counts, the source shows where there was none", async () => {
  const source = join(tempFolder("d"), "source");
  writeFileSync(source, "abcdefghij");
  const disk = await ExpectedDisk.open(source);
  try {
    disk.write(2, Buffer.from("XXXX"));
    disk.write(4, Buffer.from("yy"));
    assert.is(String(await disk.read(0, 10)), "abXXyyghij");
    assert.is(String(await disk.read(5, 2)), "yg");
    assert.is(String(await disk.read(6, 4)), "ghij");
  } finally {
    await disk.close();
  }
});

test("Reader: counts its reads, and notices what is not as it must be", async () => {
  const source = join(tempFolder("d"), "source");
  writeFileSync(source, new Random("content").bytes(2 * MiB));
  const expected = await ExpectedDisk.open(source);
  try {
    let isRight = true;
    const io = {
      async read(offset: number, length: number) {
        const data = await expected.read(offset, length);
        if (!isRight) data[length - 1] ^= 1;
        return { data, latencyMs: 1.5 };
      },
    } as unknown as QemuIo;
    const account = new Account();
    const disk = { dataPieces: [MiB] } as unknown as SampleDisk;
    const reader = new Reader(io, account, expected, disk, new Random("reader"));
    assert.is(await reader.readBlock(), 1.5);
    await reader.readSome();
    assert.is(account.reads, 2);
    assert.equal(account.differences, []);
    isRight = false;
    await reader.readSome();
    assert.is(account.differences.length, 1);
    assert.ok(account.differences[0].offset >= MiB);
  } finally {
    await expected.close();
  }
});

test("checks: each passes on what is right and fails on what is not", () => {
  const account = new Account();
  assert.is(checkReads(account).isPassed, false, "no read at all");
  account.reads = 2;
  assert.is(checkReads(account).isPassed, true);
  account.differences.push({ offset: 4096, length: 7 });
  assert.is(checkReads(account).isPassed, false);
  assert.match(checkReads(account).text, /1 of 2 reads .* 7 bytes at 4096/);

  const hashes = (verified: DiskStatus["verified"]) =>
    checkHashes({ verified, verifiedBytes: 4096 } as DiskStatus).isPassed;
  assert.equal([hashes("same"), hashes("different"), hashes(null)], [true, false, false]);

  const status = {
    refetchedBytes: 0,
    overwrittenBytes: 1,
    fetchedBytes: { demand: 1, readahead: 0, sync: 0 },
  };
  const check = (change: object) => checkMovedOnce({ ...status, ...change } as DiskStatus).isPassed;
  assert.is(check({}), true);
  assert.is(check({ refetchedBytes: 4096 }), false);
  assert.is(check({ overwrittenBytes: 0 }), false);
  assert.is(check({ fetchedBytes: { demand: 0, readahead: 9, sync: 9 } }), false);
});

test("checkNothingLeft: finds files and processes, and killProcessesOf ends these", async () => {
  const folder = tempFolder("d");
  const folders = { state: join(folder, "state"), run: join(folder, "run") };
  for (const path of [folders.state, join(folders.run, "empty")]) mkdirSync(path, { recursive: true });
  assert.is((await checkNothingLeft(folders, [])).isPassed, true);

  writeFileSync(join(folders.run, "empty", "socket"), "");
  const withFile = await checkNothingLeft(folders, []);
  assert.is(withFile.isPassed, false);
  assert.match(withFile.text, /empty\/socket/);

  // Named as an engine is: its folder is an argument of it.
  const engine = execa("sh", ["-c", "read x", "engine", join(folders.run, "abc")], {
    stdin: "pipe",
    reject: false,
  });
  try {
    while (processesOf(folders).length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    const [id] = processesOf(folders);
    assert.is(id.pid, engine.pid);
    assert.match((await checkNothingLeft(folders, [])).text, new RegExp(`process ${id.pid}\\b`));
    await killProcessesOf(folders);
    assert.is(isRunning(id), false);
  } finally {
    engine.kill("SIGKILL");
    await engine;
  }
  assert.ok(existsSync(folders.run), "files are not its business");
});

test("killProcessesOf: one that ends in the moment in which it is to be killed is no error", async () => {
  const folder = tempFolder("d");
  const folders = { state: join(folder, "state"), run: join(folder, "run") };
  const engine = execa("sh", ["-c", "read x", "engine", join(folders.run, "abc")], {
    stdin: "pipe",
    reject: false,
  });
  const { kill } = process;
  process.kill = (pid) => {
    kill(pid, "SIGKILL");
    throw Object.assign(new Error("kill ESRCH"), { code: "ESRCH" });
  };
  try {
    await killProcessesOf(folders);
    assert.equal(processesOf(folders), []);
  } finally {
    process.kill = kill;
    engine.kill("SIGKILL");
    await engine;
  }
});

test.run();
