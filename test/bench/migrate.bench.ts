/**
 * How a whole migration and the volume it serves compare with what they stand on:
 * `node test/bench/migrate.bench.ts [ROUNDS]`. Source and destination are in the page cache; in one run, in turns:
 *
 * - `dlsm migrate` of 1 GiB against `cp` of the same file, and the sync's own rate
 * - reads and writes of resident blocks through the engine against qemu-nbd
 * - cold 4 KiB reads (copy-on-read) while the sync is paused, and while it runs at full speed
 */
import { randomBytes } from "node:crypto";
import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { execa } from "execa";
import { Dlsm } from "../helpers/dlsm.ts";

const rounds = Number(process.argv[2] ?? 3);
const MiB = 1024 * 1024;
const sizeMiB = 1024;

const dlsm = new Dlsm();
const source = dlsm.path("src.img");
const descriptor = openSync(source, "w");
for (let at = 0; at < sizeMiB; at++) writeSync(descriptor, randomBytes(MiB), 0, MiB, at * MiB);
closeSync(descriptor);
await execa("cat", [source], { stdout: "ignore" });

const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const show = (name: string, values: readonly number[], unit: string) =>
  console.log(
    `${name.padEnd(52)} median ${median(values).toFixed(2)} ${unit}  (${
      values.map((v) => v.toFixed(2)).join(", ")
    })`,
  );

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

/** Operations a second of `qemu-img bench`. */
async function bench(socket: string, blockBytes: number, depth: number, count: number, write: boolean) {
  const args = ["-c", String(count), "-d", String(depth), "-s", String(blockBytes), "-S", String(blockBytes)];
  const { stdout } = await execa("qemu-img", [
    "bench",
    ...args,
    ...["-f", "raw", ...(write ? ["-w"] : [])],
    `nbd+unix:///?socket=${socket}`,
  ]);
  return count / Number(/Run completed in ([\d.]+) seconds/.exec(stdout)![1]);
}

const migrateSeconds: number[] = [];
const copySeconds: number[] = [];
for (let round = 0; round < rounds; round++) {
  const destination = dlsm.path("dst.img");
  migrateSeconds.push(await timed(() => dlsm.ok("migrate", source, destination)));
  rmSync(destination);
  const copy = dlsm.path("copy.img");
  copySeconds.push(await timed(() => execa("sh", ["-c", `cat "${source}" >"${copy}" && sync "${copy}"`])));
  rmSync(copy);
}
show("dlsm migrate, 1 GiB, start and end included", migrateSeconds, "s");
show("cat and sync of the same", copySeconds, "s");

// A volume whose first 256 MiB are resident.
const destination = dlsm.path("dst.img");
const { id, socket } = await dlsm.migrateDetached(source, destination, ["--handoff", "manual"]);
await dlsm.ok("pause", id);
await dlsm.ok("activate", id);
const cold: Record<string, number[]> = { "depth 1": [], "depth 32": [] };
for (let round = 0; round < rounds; round++) {
  const at = 512 + round * 64;
  const read = (depth: number, count: number, offset: number) =>
    execa("fio", [
      ...["--name=cold", "--ioengine=nbd", `--uri=nbd+unix:///?socket=${socket}`, "--rw=randread", "--bs=4k"],
      ...[
        `--iodepth=${depth}`,
        `--offset=${offset}m`,
        "--size=32m",
        `--number_ios=${count}`,
        "--randrepeat=0",
      ],
      "--output-format=json",
    ]).then(({ stdout }) => JSON.parse(stdout.slice(stdout.indexOf("{"))).jobs[0].read.iops as number);
  cold["depth 1"].push(await read(1, 1000, at));
  cold["depth 32"].push(await read(32, 8000, at + 32));
}
for (const [depth, values] of Object.entries(cold)) {
  show(`cold 4 KiB random reads, ${depth} (fio)`, values, "IOPS");
}

await execa("nbdcopy", [`nbd+unix:///?socket=${socket}`, "null:"]);
const other = join(dlsm.folder, "q.sock");
await execa("cp", ["--sparse=never", source, dlsm.path("q.img")]);
const server = execa("qemu-nbd", [
  "-k",
  other,
  "-f",
  "raw",
  "-t",
  "-e",
  "4",
  "--cache=writeback",
  dlsm.path("q.img"),
], { reject: false });
await sleep(500);
const workloads = [
  { name: "4 KiB reads, depth 32", blockBytes: 4096, depth: 32, count: 40_000, write: false },
  { name: "4 KiB reads, depth 1", blockBytes: 4096, depth: 1, count: 8_000, write: false },
  { name: "4 KiB writes, depth 32", blockBytes: 4096, depth: 32, count: 40_000, write: true },
  { name: "256 KiB reads, depth 8", blockBytes: 262_144, depth: 8, count: 3000, write: false },
  { name: "256 KiB writes, depth 8", blockBytes: 262_144, depth: 8, count: 3000, write: true },
];
for (const { name, blockBytes, depth, count, write } of workloads) {
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < rounds; round++) {
    ours.push(await bench(socket, blockBytes, depth, count, write));
    theirs.push(await bench(other, blockBytes, depth, count, write));
  }
  const ratios = ours.map((value, at) => value / theirs[at]);
  console.log(
    `${name.padEnd(26)} engine ${median(ours).toFixed(0)}/s, qemu-nbd ${median(theirs).toFixed(0)}/s, ` +
      `ratio ${median(ratios).toFixed(2)} (${ratios.map((v) => v.toFixed(2)).join(", ")})`,
  );
}
server.kill("SIGTERM");
await server;
await dlsm.ok("resume", id);
await dlsm.nothingLeft();
