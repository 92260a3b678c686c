/**
 * A volume under a mixed load of real clients and of guests whose every request is known, while its data
 * follows: at the end the destination is what the model says, the source what it was, and nothing crossed twice.
 */
import { Buffer } from "node:buffer";
import { createHash, randomFillSync } from "node:crypto";
import { closeSync, ftruncateSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { execa } from "execa";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { MigrationStatus } from "../../src/report/mod.ts";
import { Random } from "../engine/memory.ts";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { type Detached, Dlsm } from "../helpers/dlsm.ts";
import { attachLoop, needingLoop } from "../helpers/loop-device.ts";
import { needing } from "../helpers/needs.ts";
import { compare, type Load, runGuest, slicedArea, wholeArea } from "./model-load.ts";
import { NbdClient } from "./nbd-client.ts";
import { fetchedBytes, lbaStatusBytes, type TgtdReads, tgtdReads, untilTgtdAgrees } from "./tgtd-counters.ts";

const test = suite("load");
const withAll = needing(test, ["tgtd", "qemu-io", "nbdcopy", "fio"]);
const withLoop = await needingLoop(test, withAll);

const seed = Number(process.env.DLSM_SEED ?? 1);

/** Where each client works; in units of a 64th of the disk. */
const places = {
  nbdcopy: [0, 8],
  fio: [8, 24],
  qemuIo: [24, 32],
  sliced: [32, 34],
  guests: [34, 50],
  untouched: [50, 54],
  // Nobody uses what is between: it is left to the sync.
  end: [58, 64],
} as const;

interface Range {
  readonly from: number;
  readonly to: number;
}

const fioJobs = 2;
const slicers = 3;
const guests = 3;

interface Scenario {
  readonly source: string;
  readonly destination: string;
  /** The source's content. */
  readonly content: Buffer;
  readonly options: readonly string[];
  readonly blockBytes: number;
  /** The clients start after the hand-off; else before, and their writes wait for it. */
  readonly isHandedOverFirst?: boolean;
  /** What is behind that is left to the sync. Default: nothing. */
  readonly usedBytes?: number;
  /** Whole copies that are made meanwhile; each fetches all that is absent. */
  readonly copies: number;
  /** Runs while the load does; the load goes on until it is through. */
  steer?(dlsm: Dlsm, migration: Detached): Promise<void>;
  /** The load is over, and the volume still in use. `before`: what tgtd had read before the hand-off. */
  check?(dlsm: Dlsm, migration: Detached, before: TgtdReads): Promise<void>;
}

/** Runs a scenario to its end; what the destination has to be. */
async function run(dlsm: Dlsm, scenario: Scenario): Promise<Buffer> {
  const { source, destination, content, options, blockBytes } = scenario;
  const model = Buffer.from(content);
  const unit = Math.floor(content.length / 64 / 4096) * 4096;
  const at = (place: keyof typeof places) => {
    const [from, to] = places[place];
    return { from: from * unit, to: to === 64 ? scenario.usedBytes ?? content.length : to * unit };
  };
  const migration = await dlsm.migrateDetached(source, destination, ["--handoff", "manual", ...options]);
  const { uri, socket, id } = migration;
  const user = await NbdClient.connect(socket);
  const before = await tgtdReads(dlsm, id);
  let isSteered = false;
  const untouched = at("untouched");
  const load: Load = {
    model,
    blockBytes,
    untouched: { offset: untouched.from, length: untouched.to - untouched.from },
    depth: 6,
    requests: 300,
    isOver: () => isSteered,
  };
  const fio = fioArguments(at("fio"));

  if (scenario.isHandedOverFirst) await dlsm.ok("activate", id);
  const clients = [
    fillByNbdcopy(dlsm, uri, model, at("nbdcopy")),
    runProgram(dlsm, "fio", "--ioengine=nbd", `--uri=${uri}`, ...fio),
    writeByQemuIo(dlsm, uri, model, at("qemuIo").from),
    ...guestsOf(at, socket, load),
    copyAll(dlsm, uri, model, untouched, scenario.copies),
  ];
  const all = Promise.all(clients);
  all.catch(() => isSteered = true);
  // Now the load and the sync begin at once.
  if (!scenario.isHandedOverFirst) await dlsm.ok("activate", id);
  await scenario.steer?.(dlsm, migration);
  isSteered = true;
  await all;
  await scenario.check?.(dlsm, migration, before);

  // What fio wrote it has verified itself; from here on it must stay as it is.
  const copy = dlsm.path("copy");
  await runProgram(dlsm, "nbdcopy", uri, copy);
  const seen = readFileSync(copy);
  const { from, to } = at("fio");
  seen.copy(model, from, from, to);
  compare(seen, model, 0, "the volume after the load");

  const synced = await dlsm.until(id, (status) => status?.phase === "released", "synced and released");
  checkFigures(synced!);
  user.close();
  await dlsm.nothingLeft();
  compareDisk(source, content, "the source");
  return model;
}

/** Every byte came over once, or was a hole, or was overwritten before. */
function checkFigures({ disks: [disk] }: MigrationStatus): void {
  assert.is(disk.refetchedBytes, 0);
  assert.is(disk.residentBytes, disk.sizeBytes);
  assert.is(disk.lastError, null);
  // Blocks are counted whole; the disk's last one may be short.
  const sum = fetchedBytes(disk) + disk.holeBytes + disk.overwrittenBytes;
  assert.ok(sum >= disk.sizeBytes && sum < disk.sizeBytes + disk.blockBytes, JSON.stringify(disk));
  assert.ok(disk.overwrittenBytes > 0 && disk.fetchedBytes.sync > 0, JSON.stringify(disk));
}

function guestsOf(
  at: (place: keyof typeof places) => Range,
  socket: string,
  load: Load,
): Promise<unknown>[] {
  const { from, to } = at("guests");
  const sliced = at("sliced");
  const end = at("end");
  // Neighbours share the block that their border is in.
  const border = (index: number) => from + Math.floor((to - from) * index / guests) + (index % guests) * 1234;
  const areas = [
    ...Array.from({ length: slicers }, (_, index) => slicedArea(sliced.from, sliced.to, index, slicers)),
    ...Array.from({ length: guests }, (_, index) => wholeArea(border(index), border(index + 1))),
    wholeArea(end.from, end.to),
  ];
  return areas.map(async (area, index) => {
    const client = await NbdClient.connect(socket);
    try {
      await runGuest(client, area, new Random(seed * 100 + index), load);
    } finally {
      client.close();
    }
  });
}

async function fillByNbdcopy(
  dlsm: Dlsm,
  uri: string,
  model: Buffer,
  { from, to }: Range,
) {
  const image = Buffer.alloc(to - from);
  for (let at = 0; at < image.length; at += 5 * 65536) {
    randomFillSync(image, at, Math.min(2 * 65536 + 4096, image.length - at));
  }
  const path = dlsm.path("image");
  writeFileSync(path, image);
  await runProgram(dlsm, "nbdcopy", "--connections=2", "--requests=16", "--flush", path, uri);
  image.copy(model, from);
}

async function writeByQemuIo(dlsm: Dlsm, uri: string, model: Buffer, from: number): Promise<void> {
  const commands: string[] = [];
  const fill = (command: string, value: number, offset: number, length: number) => {
    commands.push(`${command} ${from + offset} ${length}`);
    model.fill(value, from + offset, from + offset + length);
  };
  const check = (value: number, offset: number, length: number) =>
    commands.push(`read -P ${value} ${from + offset} ${length}`);
  const pieceBytes = 256 * 1024;
  for (let piece = 0; piece < 12; piece++) {
    const at = piece * pieceBytes;
    const value = 16 + piece;
    fill(`write -P ${value}`, value, at, pieceBytes / 2);
    fill(`write -f -P ${value + 32}`, value + 32, at + 1, 1);
    fill(`write -P ${value + 64}`, value + 64, at + 4096 + 512, 512);
    fill("write -z -u", 0, at + 8192 + 100, 10_000);
    // qemu-io passes on whole blocks of a discard; of 64 KiB, that is, where the volume's are so large.
    fill("discard", 0, at + 65536, 65536);
    fill(`aio_write -P ${value + 96}`, value + 96, at + pieceBytes / 2 + 777, 65536);
    fill(`aio_write -P ${value + 128}`, value + 128, at + pieceBytes / 2 + 777 + 65536, 33);
    commands.push("aio_flush");
    check(value, at + 2, 4094);
    check(value + 32, at + 1, 1);
    check(value + 64, at + 4096 + 512, 512);
    check(0, at + 8192 + 100, 10_000);
    check(0, at + 65536, 65536);
    check(value + 96, at + pieceBytes / 2 + 777, 65536);
    if (piece % 4 === 3) commands.push("flush");
  }
  const { stdout } = await runProgram(
    dlsm,
    "qemu-io",
    "-f",
    "raw",
    ...commands.flatMap((command) => ["-c", command]),
    uri,
  );
  assert.not.match(stdout, /verification failed|error/i);
}

/** Copies of the disk while it is written; the part that nobody writes must be right in each. */
async function copyAll(dlsm: Dlsm, uri: string, model: Buffer, { from, to }: Range, rounds: number) {
  for (let round = 0; round < rounds; round++) {
    const path = dlsm.path(`copy${round}`);
    await runProgram(dlsm, "nbdcopy", "--connections=2", uri, path);
    compare(readFileSync(path).subarray(from, to), model, from, "a copy of the untouched part");
  }
}

function fioArguments({ from, to }: Range): string[] {
  const jobBytes = (to - from) / fioJobs;
  return [
    "--name=job",
    "--rw=randrw",
    "--bssplit=512/20:4k/50:64k/30",
    "--iodepth=16",
    `--numjobs=${fioJobs}`,
    `--offset=${from}`,
    `--size=${jobBytes}`,
    `--offset_increment=${jobBytes}`,
    "--verify=crc32c",
    "--verify_fatal=1",
    "--fsync=64",
    `--randseed=${seed}`,
  ];
}

function runProgram(dlsm: Dlsm, program: string, ...parameters: string[]) {
  return execa(program, parameters, { cwd: dlsm.folder, timeout: 120_000 });
}

/** Data (also in single blocks) and holes all over. */
function makeSource(path: string, sizeBytes: number): Buffer {
  const mebibytes = Math.floor(sizeBytes / MiB);
  const isData = (mebibyte: number) => ![2, 3, 7].includes(mebibyte % 8);
  makeDisk(path, mebibytes, Array.from({ length: mebibytes }, (_, index) => index).filter(isData));
  const descriptor = openSync(path, "r+");
  try {
    ftruncateSync(descriptor, sizeBytes);
    for (let at = 2 * MiB + 12_288; at < sizeBytes; at += 8 * MiB + 4096) {
      writeSync(descriptor, randomFillSync(Buffer.alloc(4096)), 0, Math.min(4096, sizeBytes - at), at);
    }
    const tail = sizeBytes - mebibytes * MiB;
    if (tail > 0) writeSync(descriptor, randomFillSync(Buffer.alloc(tail)), 0, tail, mebibytes * MiB);
  } finally {
    closeSync(descriptor);
  }
  return readFileSync(path);
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

function compareDisk(path: string, expected: Buffer, what: string): void {
  const bytes = readFileSync(path);
  assert.is(bytes.length, expected.length, what);
  if (sha256(bytes) !== sha256(expected)) compare(bytes, expected, 0, what);
}

async function withDlsm(work: (dlsm: Dlsm) => Promise<void>): Promise<void> {
  const dlsm = new Dlsm();
  try {
    await work(dlsm);
  } finally {
    await dlsm.close();
  }
}

withAll(
  "full speed: the result is what the model says, the source what it was",
  () =>
    withDlsm(async (dlsm) => {
      const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
      const content = makeSource(source, 96 * MiB + 512);
      const model = await run(dlsm, {
        source,
        destination,
        content,
        options: [],
        blockBytes: 4096,
        copies: 2,
      });
      compareDisk(destination, model, "the destination");
    }),
);

withAll(
  "paused, limited and resumed, 64 KiB blocks, an odd size: the same, and tgtd counts the same",
  () =>
    withDlsm(async (dlsm) => {
      const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
      const content = makeSource(source, 64 * MiB + 3 * 512);
      const model = await run(dlsm, {
        source,
        destination,
        content,
        options: ["--block-size", "64KiB", "--bwlimit", "128KiB/s"],
        blockBytes: 65536,
        usedBytes: 64 * MiB,
        copies: 0,
        isHandedOverFirst: true,
        async steer(dlsm, { id }) {
          const isPaused = async () => (await dlsm.status(id))!.paused;
          await dlsm.ok("pause", id);
          assert.is(await isPaused(), true);
          await dlsm.ok("limit", id, "256KiB/s");
          assert.is(await isPaused(), true, "a limit does not resume");
          await dlsm.ok("resume", id, "--detach");
          assert.is(await isPaused(), false);
          await dlsm.ok("limit", id, "256KiB/s");
          await dlsm.ok("pause", id);
          await dlsm.ok("pause", id);
          await dlsm.ok("resume", id, "--detach");
          // From now on nothing comes but what is asked for.
          await dlsm.ok("limit", id, "1");
        },
        async check(dlsm, { id }, before) {
          // The holes were asked for once.
          const disk = await untilTgtdAgrees(dlsm, id, before, lbaStatusBytes);
          assert.is(disk.refetchedBytes, 0);
          await dlsm.ok("limit", id, "off");
        },
      });
      compareDisk(destination, model, "the destination");
    }),
);

withLoop(
  "to a larger block device full of garbage: the source's holes are zeroes there, the rest stays",
  () =>
    withDlsm(async (dlsm) => {
      const [source, backing] = [dlsm.path("src.img"), dlsm.path("device.img")];
      const content = makeSource(source, 64 * MiB);
      writeFileSync(backing, Buffer.alloc(68 * MiB, 0xa5));
      const device = await attachLoop(backing);
      try {
        const options = ["--force"];
        const model = await run(dlsm, {
          source,
          destination: device.path,
          content,
          options,
          blockBytes: 4096,
          copies: 1,
        });
        await device.detach();
        compareDisk(backing, Buffer.concat([model, Buffer.alloc(4 * MiB, 0xa5)]), "the destination");
      } finally {
        await device.detach();
      }
    }),
);

withLoop(
  "from a block device with sectors of 4096 bytes to a file full of garbage",
  () =>
    withDlsm(async (dlsm) => {
      const [backing, destination] = [dlsm.path("device.img"), dlsm.path("dst.img")];
      const content = makeSource(backing, 64 * MiB);
      writeFileSync(destination, Buffer.alloc(66 * MiB, 0xa5));
      const device = await attachLoop(backing, 4096);
      try {
        const options = ["--force"];
        const model = await run(dlsm, {
          source: device.path,
          destination,
          content,
          options,
          blockBytes: 4096,
          copies: 1,
        });
        compareDisk(destination, Buffer.concat([model, Buffer.alloc(2 * MiB, 0xa5)]), "the destination");
      } finally {
        await device.detach();
      }
    }),
);

test.run();
