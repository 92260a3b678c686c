/**
 * How the NBD server compares with qemu-nbd: `node test/bench/nbd-server.bench.ts [ROUNDS]`. Both serve the
 * same file, which is in the page cache, to `qemu-img bench`, in turns in one run, so that the ratios hold
 * on a machine that is busy with other things; the absolute figures do not.
 */
import { execa } from "execa";
import {
  closeSync,
  existsSync,
  ftruncateSync,
  openSync,
  read,
  readFileSync,
  write,
  writeSync,
} from "node:fs";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { type BlockDevice, NbdServer } from "../../src/nbd-server/mod.ts";
import { tempFolder } from "../helpers/temp.ts";

const sizeBytes = 256 * 1024 * 1024;
const rounds = Number(process.argv[2] ?? 5);
const workloads = [
  { name: "4 KiB reads, depth 32", blockBytes: 4096, depth: 32, count: 60_000, write: false },
  { name: "4 KiB reads, depth 1", blockBytes: 4096, depth: 1, count: 10_000, write: false },
  { name: "4 KiB writes, depth 32", blockBytes: 4096, depth: 32, count: 60_000, write: true },
  { name: "256 KiB reads, depth 8", blockBytes: 262_144, depth: 8, count: 4000, write: false },
  { name: "256 KiB writes, depth 8", blockBytes: 262_144, depth: 8, count: 4000, write: true },
];

/** Plain asynchronous reads and writes of a file. */
function fileDevice(descriptor: number): BlockDevice {
  const nothing = () => Promise.resolve();
  return {
    sizeBytes,
    preferredBlockBytes: 4096,
    metaContexts: [],
    read: (offset, length) =>
      new Promise((resolve, reject) => {
        const bytes = Buffer.allocUnsafe(length);
        read(descriptor, bytes, 0, length, offset, (error) => error ? reject(error) : resolve([bytes]));
      }),
    write: (offset, data) =>
      new Promise((resolve, reject) => {
        write(descriptor, data, 0, data.length, offset, (error) => error ? reject(error) : resolve());
      }),
    flush: nothing,
    trim: nothing,
    writeZeroes: nothing,
    prefetch: nothing,
    blockStatus: () => Promise.resolve([]),
  };
}

async function seconds(socket: string, workload: typeof workloads[number]): Promise<number> {
  const { blockBytes, depth, count } = workload;
  const { stdout } = await execa("qemu-img", [
    "bench",
    ...["-c", String(count), "-d", String(depth), "-s", String(blockBytes), "-f", "raw"],
    ...(workload.write ? ["-w"] : []),
    `nbd+unix:///?socket=${socket}`,
  ]);
  return Number(/Run completed in ([\d.]+) seconds/.exec(stdout)![1]);
}

const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

const folder = tempFolder("bench");
const image = join(folder, "image");
const descriptor = openSync(image, "w+", 0o600);
for (let at = 0; at < sizeBytes; at += 1024 * 1024) {
  writeSync(descriptor, randomBytes(1024 * 1024), 0, undefined, at);
}
ftruncateSync(descriptor, sizeBytes);
readFileSync(image);

const own = join(folder, "own");
const server = new NbdServer(fileDevice(descriptor));
await server.listen(own);
const peer = join(folder, "qemu-nbd");
const qemuNbd = execa("qemu-nbd", ["-t", "-e", "8", "-f", "raw", "--cache=writeback", "-k", peer, image], {
  reject: false,
});
while (!existsSync(peer)) await new Promise((resolve) => setTimeout(resolve, 20));

const runtime = "Deno" in globalThis ? "Deno" : `Node ${process.versions.node}`;
console.log(`${runtime}, ${rounds} rounds, medians; ratio: our rate / qemu-nbd's`);
for (const workload of workloads) {
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < rounds; round++) {
    ours.push(await seconds(own, workload));
    theirs.push(await seconds(peer, workload));
  }
  const rate = (times: readonly number[]) => Math.round(workload.count / median(times));
  const ratio = median(theirs) / median(ours);
  console.log(
    `${workload.name.padEnd(26)} ours ${rate(ours)}/s, qemu-nbd ${rate(theirs)}/s, ratio ${ratio.toFixed(2)}`,
  );
}

qemuNbd.kill();
await qemuNbd;
await server.close();
closeSync(descriptor);
