/** The real clients against the server: libnbd's, QEMU's and fio. */
import { execa } from "execa";
import { createHash, randomFillSync } from "node:crypto";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { NbdServer } from "../../src/nbd-server/mod.ts";
import { needing } from "../helpers/needs.ts";
import { tempFolder } from "../helpers/temp.ts";
import { coded, MemoryDevice } from "./memory-device.ts";

interface Context {
  folder: string;
  device: MemoryDevice;
  server: NbdServer;
  errors: Error[];
  uri: string;
}

const test = suite<Context>("NBD server with real clients");

const mebibyte = 1024 * 1024;
const sizeBytes = 64 * mebibyte;

test.before.each(async (context) => {
  context.folder = tempFolder("nbd");
  context.device = new MemoryDevice(sizeBytes);
  context.errors = [];
  context.server = new NbdServer(context.device, {
    exportName: "disk",
    description: "a disk in memory",
    onError: (error) => context.errors.push(error),
  });
  const path = join(context.folder, "s");
  await context.server.listen(path);
  context.uri = `nbd+unix:///?socket=${path}`;
});

test.after.each(async ({ server, errors }) => {
  await server.close();
  assert.equal(errors, []);
});

/** Standard output; throws with both outputs if it fails. */
async function run(program: string, ...parameters: string[]): Promise<string> {
  return (await execa(program, parameters, { timeout: 60_000 })).stdout;
}

const qemuIo = (uri: string, commands: readonly string[], ...options: string[]) =>
  run("qemu-io", ...options, "-f", "raw", ...commands.flatMap((command) => ["-c", command]), uri);

const hash = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

function randomImage(context: Context): string {
  const path = join(context.folder, "image");
  const image = new Uint8Array(sizeBytes);
  randomFillSync(image, 0, 5 * mebibyte + 512);
  randomFillSync(image, 40 * mebibyte, mebibyte);
  writeFileSync(path, image);
  return path;
}

const withNbdinfo = needing(test, ["nbdinfo"]);
const withNbdcopy = needing(test, ["nbdcopy"]);
const withQemu = needing(test, ["qemu-io", "qemu-img"]);
const withFio = needing(test, ["fio"]);

withNbdinfo("nbdinfo shows size, flags, block sizes and contexts", async ({ uri }) => {
  const { exports: [shown] } = JSON.parse(await run("nbdinfo", "--json", uri));
  assert.is(shown["export-size"], sizeBytes);
  assert.is(shown.description, "a disk in memory");
  assert.equal(shown.contexts, ["base:allocation", "dlsm:residency"]);
  const abilities = Object.fromEntries(
    Object.entries(shown).filter(([key]) => /^(is|can|block)_|^block_size/.test(key)),
  );
  assert.equal(abilities, {
    is_rotational: false,
    is_read_only: false,
    can_cache: true,
    can_df: true,
    can_fast_zero: true,
    can_flush: true,
    can_fua: true,
    can_multi_conn: true,
    can_trim: true,
    can_zero: true,
    block_size_minimum: 1,
    block_size_preferred: 4096,
    block_size_maximum: 33554432,
  });
});

withNbdinfo("nbdinfo --list shows the one export", async ({ uri }) => {
  const { exports } = JSON.parse(await run("nbdinfo", "--list", "--json", uri));
  assert.equal(exports.map((shown: Record<string, unknown>) => [shown["export-name"], shown.description]), [
    ["disk", "a disk in memory"],
  ]);
});

withNbdinfo("nbdinfo accepts the export's name, and learns that another one is unknown", async ({ uri }) => {
  assert.is(await run("nbdinfo", "--size", uri.replace("///", "///disk")), String(sizeBytes));
  const { failed, stderr } = await execa("nbdinfo", [uri.replace("///", "///other")], { reject: false });
  assert.ok(failed);
  assert.match(stderr, /export|unknown|NBD_OPT_GO|server replied/i);
});

withNbdinfo("nbdinfo --map shows allocation and residency", async ({ device, uri }) => {
  await device.write(mebibyte, new Uint8Array(4096), false);
  await device.write(3 * mebibyte, new Uint8Array(mebibyte), false);
  const map = async (...options: string[]) =>
    (JSON.parse(await run("nbdinfo", "--json", ...options, uri)) as Record<string, number>[])
      .map(({ offset, length, type }) => [offset, length, type]);
  const boundaries = [0, mebibyte, mebibyte + 4096, 3 * mebibyte, 4 * mebibyte, sizeBytes];
  const expected = (flags: (isData: boolean) => number) =>
    boundaries.slice(1).map((
      end,
      index,
    ) => [boundaries[index], end - boundaries[index], flags(index % 2 === 1)]);
  assert.equal(await map("--map"), expected((isData) => isData ? 0 : 3));
  assert.equal(await map("--map=dlsm:residency"), expected((isData) => isData ? 1 : 0));
});

withNbdinfo("nbdinfo --map goes on after a reply that was cut short", async ({ device, uri }) => {
  const all = 10_000;
  for (let index = 0; index < all / 2; index++) await device.write(index * 8192, new Uint8Array(1), false);
  const map = JSON.parse(await run("nbdinfo", "--json", "--map", uri));
  assert.is(map.length, all);
});

withNbdcopy("nbdcopy copies an image in and out, with holes", async (context) => {
  const { device, uri, folder } = context;
  const image = randomImage(context);
  await run("nbdcopy", image, uri);
  assert.is(hash(device.bytes), hash(readFileSync(image)));
  const copy = join(folder, "copy");
  await run("nbdcopy", uri, copy);
  assert.is(hash(readFileSync(copy)), hash(device.bytes));
  assert.ok(statSync(copy).blocks * 512 < 8 * mebibyte);
});

withNbdcopy("nbdcopy with many connections and large requests", async (context) => {
  const { device, uri } = context;
  const image = randomImage(context);
  await run("nbdcopy", "--connections=8", "--requests=64", "--request-size=4194304", "--flush", image, uri);
  assert.is(hash(device.bytes), hash(readFileSync(image)));
  assert.ok(device.calls.some(({ method }) => method === "flush"));
});

withQemu("qemu-io writes, reads, discards, zeroes and flushes", async ({ device, uri }) => {
  await qemuIo(uri, [
    "write -P 0xaa 0 1M",
    "read -P 0xaa 0 1M",
    "write -z 64k 64k",
    "read -P 0 64k 64k",
    "discard 512k 64k",
    "read -P 0 512k 64k",
    "aio_write -P 0xbb 1M 2M",
    "aio_write -P 0xcc 3M 1M",
    "aio_flush",
    "aio_read -P 0xbb 1M 2M",
    "aio_read -P 0xcc 3M 1M",
    "aio_flush",
    "write -P 0xdd 5000001 777",
    "read -P 0xdd 5000001 777",
    "write -P 0xee 8M 32M",
    "read -P 0xee 8M 32M",
    "flush",
  ]);
  const methods = new Set(device.calls.map(({ method }) => method));
  assert.equal([...methods].sort(), ["flush", "read", "trim", "write", "writeZeroes"].sort());
});

withQemu("qemu-io's FUA and unmap flags arrive", async ({ device, uri }) => {
  await qemuIo(uri, ["write -f -P 1 0 4k", "write -z -f 4k 4k", "write -z -u 8k 4k"], "-t", "writeback");
  const [write, kept, punched] = device.calls.filter(({ method }) => method.startsWith("write"));
  assert.is(write.fua, true);
  assert.equal([kept.fua, kept.noHole], [true, true]);
  assert.equal([punched.fua, punched.noHole], [false, false]);
});

withQemu("qemu-io shows the device's errors and goes on", async ({ device, uri }) => {
  device.before = ({ offset, method }) => {
    if (offset === 4096 && method === "read") throw coded("EIO", "bad sector");
    if (offset === 8192 && method === "write") throw coded("ENOSPC", "full");
  };
  const commands = ["read 4k 4k", "write 8k 4k", "write -P 1 12k 4k", "read -P 1 12k 4k"];
  const parameters = ["-f", "raw", ...commands.flatMap((command) => ["-c", command]), uri];
  const { all } = await execa("qemu-io", parameters, { reject: false, all: true, timeout: 60_000 });
  assert.match(all, /read failed: Input\/output error/);
  assert.match(all, /write failed: No space left on device/);
  assert.match(all, /wrote 4096\/4096/);
  assert.match(all, /read 4096\/4096/);
});

withQemu("qemu-img info, map and bench work", async ({ device, uri }) => {
  await device.write(mebibyte, new Uint8Array(65536), false);
  const about = JSON.parse(await run("qemu-img", "info", "--output=json", "-f", "raw", uri));
  assert.is(about["virtual-size"], sizeBytes);
  const map = JSON.parse(await run("qemu-img", "map", "--output=json", "-f", "raw", uri));
  assert.equal(
    map.map(({ start, length, data }: Record<string, number>) => [start, length, data]),
    [[0, mebibyte, false], [mebibyte, 65536, true], [mebibyte + 65536, sizeBytes - mebibyte - 65536, false]],
  );
  for (const options of [["-d", "32"], ["-d", "1"], ["-w", "-d", "16", "--flush-interval=64"]]) {
    const output = await run("qemu-img", "bench", "-c", "2000", "-s", "4096", ...options, "-f", "raw", uri);
    assert.match(output, /Run completed/);
  }
});

withQemu("qemu-img compare finds an image that qemu-img convert wrote identical", async (context) => {
  const { uri } = context;
  const image = randomImage(context);
  await run("qemu-img", "convert", "-n", "-W", "-f", "raw", "-O", "raw", image, uri);
  assert.match(await run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri), /identical/);
});

withFio("fio verifies what several jobs wrote at the same time", async ({ server, folder, uri }) => {
  let mostClients = 0;
  const watch = setInterval(() => (mostClients = Math.max(mostClients, server.connectionCount)), 5);
  const output = await execa("fio", [
    "--name=job",
    "--ioengine=nbd",
    `--uri=${uri}`,
    "--rw=randrw",
    "--bssplit=512/20:4k/50:64k/30",
    "--iodepth=16",
    "--numjobs=4",
    "--size=8m",
    "--offset_increment=16m",
    "--verify=crc32c",
    "--verify_fatal=1",
    "--do_verify=1",
    "--fsync=64",
    "--randseed=1",
    "--group_reporting",
  ], { cwd: folder, timeout: 60_000 });
  clearInterval(watch);
  assert.match(output.stdout, /err= 0/);
  assert.is(mostClients, 4);
});

withNbdinfo(
  "a real client sees the end of file when the server closes",
  async ({ server, device, uri, folder }) => {
    await device.write(0, new Uint8Array(4096), false);
    let called = () => {};
    const stuck = new Promise<void>((resolve) => (called = resolve));
    device.before = ({ method }) => {
      if (method !== "read") return;
      called();
      return new Promise(() => {});
    };
    const client = execa("nbdcopy", [uri, join(folder, "copy")], { reject: false, timeout: 60_000 });
    await stuck;
    await server.close();
    const { failed, stderr } = await client;
    assert.ok(failed);
    assert.not.match(stderr, /ESHUTDOWN|shutdown error|Cannot send after/i);
    assert.not.ok(existsSync(join(folder, "s")));
  },
);

test.run();
