/**
 * The engine is killed again and again under a client that reconnects, as QEMU's does: fio, which uses the volume
 * through that, sees no error and finds everything that it wrote. (Invariant 6: every acknowledged write survives
 * the engine.) The long mode: DLSM_ROUNDS=50.
 */
import { readFileSync } from "node:fs";
import { execa } from "execa";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { setTimeout as sleep } from "node:timers/promises";
import { Random } from "../engine/memory.ts";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { Dlsm } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { killParts, type Part, within } from "../helpers/processes.ts";
import { runTool } from "./nbd-tools.ts";
import { throughQemu } from "./qemu-client.ts";
import { explains, seed } from "./under-load.ts";

const test = suite("faults: the engine under fio");
const withFio = needing(test, ["tgtd", "fio", "qemu-nbd", "qemu-io"]);

const rounds = Number(process.env.DLSM_ROUNDS ?? 3);
/** Each round has one of so many regions of the disk; what is behind them fio leaves alone. */
const regions = 8;
const regionMiB = 4;
const sizeMiB = 64;
/** A round of fio's takes about this long, and more while the engine is away. */
const roundMs = 1_000;

withFio("killed at random moments: fio finds all that it wrote, in each round and at the end", async () => {
  const dlsm = new Dlsm();
  try {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeDisk(source, sizeMiB, Array.from({ length: sizeMiB }, (_, at) => at));
    const before = readFileSync(source);
    const { id, socket } = await dlsm.migrateDetached(source, destination, ["--bwlimit", "128KiB/s"]);
    const random = new Random(seed);
    await throughQemu(socket, dlsm.path("q.sock"), async (uri) => {
      for (let round = 0; round < rounds; round++) {
        const parts: Part[] = round % 3 === 2 ? ["driver", "engine"] : ["engine"];
        const delayMs = random.below(roundMs);
        const written = fio(uri, round, "--do_verify=1", "--rate=,3m");
        await Promise.race([written, sleep(delayMs)]);
        await killParts(dlsm, parts);
        if (parts.includes("driver")) {
          await explains(dlsm, id, /^ {2}last error: the engine of \w+ does not run/);
          await dlsm.ok("resume", id, "--detach");
        }
        await within(written, `fio, round ${round}, killed after ${delayMs} ms`);
        const { phase } = (await dlsm.until(id, (status) =>
          status?.disks[0].enginePid != null, "it is back"))!;
        assert.is(phase, "active", "it goes on until it is let finish");
      }
      // What the last round left in each region.
      for (let round = Math.max(0, rounds - regions); round < rounds; round++) {
        await fio(uri, round, "--verify_only=1");
      }
      const absent = ["-f", "raw", "-r", "-c", `read ${(sizeMiB - 1) * MiB} ${MiB}`, uri];
      await runTool("qemu-io", ...absent);
    });
    await dlsm.ok("limit", id, "off");
    await dlsm.until(id, (status) => status === undefined, "done");
    for (let round = Math.max(0, rounds - regions); round < rounds; round++) {
      await fio(destination, round, "--verify_only=1");
    }
    const after = readFileSync(destination);
    const untouched = regionMiB * Math.min(rounds, regions) * MiB;
    assert.is(Buffer.compare(after.subarray(untouched), before.subarray(untouched)), 0);
    assert.ok(readFileSync(source).equals(before), "the source is as it was");
    await dlsm.nothingLeft();
  } catch (error) {
    throw new Error(`seed ${seed}: ${error}`, { cause: error });
  } finally {
    await dlsm.close();
  }
});

/** fio on the region of a round, with data of that round; throws what it finds wrong. */
async function fio(where: string, round: number, ...more: string[]): Promise<void> {
  const isNbd = where.startsWith("nbd");
  const { exitCode, stdout, stderr } = await execa("fio", [
    "--name=guest",
    ...(isNbd ? ["--ioengine=nbd", `--uri=${where}`] : ["--ioengine=psync", `--filename=${where}`]),
    "--rw=randwrite",
    "--bsrange=512-32k",
    "--bs_unaligned=0",
    "--blockalign=512",
    `--iodepth=${isNbd ? 8 : 1}`,
    `--offset=${round % regions * regionMiB}m`,
    `--size=${regionMiB}m`,
    `--randseed=${1 + round}`,
    "--verify=crc32c",
    "--verify_fatal=1",
    "--verify_state_save=0",
    ...more,
  ], { reject: false, stdin: "ignore" });
  if (exitCode !== 0) throw new Error(`fio, round ${round}: exit ${exitCode}\n${stdout}\n${stderr}`);
}

test.run();
