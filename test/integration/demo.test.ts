/** `dlsm demo` as its user runs it. */
import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Dlsm, kill } from "../helpers/dlsm.ts";
import { findProgram, needing } from "../helpers/needs.ts";

const test = suite("dlsm demo");
const withTools = needing(test, ["tgtd", "qemu-io", "mke2fs", "e2fsck", "debugfs"]);
const MiB = 1024 * 1024;

interface Printed {
  readonly result: string;
  readonly folder: string | null;
  readonly checks: readonly { readonly name: string; readonly passed: boolean }[];
}

/** Runs `work` with a folder for the demo's own one; nothing may be left in it, nor anywhere else. */
async function withDlsm(
  work: (dlsm: Dlsm, args: string[]) => Promise<void>,
  environment: Record<string, string> = {},
): Promise<void> {
  const dlsm = new Dlsm(environment);
  try {
    const parent = dlsm.path("parent");
    mkdirSync(parent);
    await work(dlsm, ["demo", "--size", "64MiB", "--folder", parent]);
    assert.equal(readdirSync(parent), [], "its folder is gone");
    assert.not(existsSync(dlsm.environment.DLSM_STATE_DIR), "the user's state is not touched");
    assert.not(existsSync(dlsm.environment.DLSM_RUN_DIR));
    assert.equal(dlsm.processes(), []);
  } finally {
    await dlsm.close();
  }
}

/** A folder for PATH with a program of this name, a shell script. */
function fake(dlsm: Dlsm, name: string, script: string): string {
  const folder = dlsm.path("bin");
  mkdirSync(folder);
  writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`);
  chmodSync(join(folder, name), 0o755);
  return folder;
}

withTools("passes, prints one object, leaves nothing", () =>
  withDlsm(async (dlsm, args) => {
    const { stdout, stderr } = await dlsm.ok(...args, "--json");
    assert.is(stdout.trim().split("\n").length, 1);
    const printed = JSON.parse(stdout);
    assert.is(printed.result, "passed");
    assert.is(printed.folder, null);
    assert.is(printed.sizeBytes, 64 * MiB);
    assert.is(printed.residentBytes, 64 * MiB);
    assert.is(printed.refetchedBytes, 0);
    for (const bytes of [printed.overwrittenBytes, printed.holeBytes, printed.fetchedBytes.demand]) {
      assert.ok(bytes > 0);
    }
    assert.ok(printed.clients.reads > 300 && printed.clients.writes > 150);
    assert.equal(printed.checks.map(({ name }: { name: string }) => name), [
      "reads",
      "hashes",
      "movedOnce",
      "fileSystem",
      "files",
      "content",
      "source",
      "nothingLeft",
    ]);
    assert.match(stderr, /usable after/);
  }));

withTools(
  "a byte that is wrong on the destination is found: exit 5; --keep keeps both disks",
  () =>
    withDlsm(async (dlsm, args) => {
      // The first check that runs a program damages what the others look at.
      const real = findProgram("e2fsck")!;
      const damage = `for image; do :; done\nprintf X | dd of="$image" bs=1 seek=67000000 conv=notrunc 2>&1`;
      dlsm.environment.PATH = `${fake(dlsm, "e2fsck", `${damage}\nexec ${real} "$@"`)}:${process.env.PATH}`;
      const { exitCode, stdout, stderr } = await dlsm.run(...args, "--json", "--keep");
      assert.is(exitCode, 5, stderr);
      const printed = JSON.parse(stdout.split("\n")[0]) as Printed;
      assert.is(printed.result, "failed");
      assert.equal(printed.checks.filter(({ passed }) => !passed).map(({ name }) => name), ["content"]);
      assert.match(stderr, /differs .* at byte 67000000/);
      for (const name of ["source.img", "destination.img"]) {
        assert.is(statSync(join(printed.folder!, name)).size, 64 * MiB);
      }
      rmSync(printed.folder!, { recursive: true });
    }),
);

withTools("Ctrl-C while the disk moves: exit 4, nothing left", () =>
  withDlsm(async (dlsm, args) => {
    const demo = dlsm.start(...args);
    demo.stderr!.on("data", (text) => {
      if (String(text).includes("usable after")) kill(demo.pid!, "SIGINT");
    });
    const { exitCode, stdout, stderr } = await demo;
    assert.is(exitCode, 4, String(stderr));
    assert.is(stdout, "");
    assert.match(String(stderr), /interrupted: all that the demo made was removed/);
  }));

withTools("a tool that fails is quoted: exit 1, nothing left", () =>
  withDlsm(async (dlsm, args) => {
    dlsm.environment.PATH = `${fake(dlsm, "mke2fs", "echo no >&2\nexit 1")}:${process.env.PATH}`;
    const { exitCode, stderr } = await dlsm.run(...args);
    assert.is(exitCode, 1);
    assert.match(stderr, /mke2fs ended with exit code 1: no/);
  }));

test("what is missing is named with its package: exit 3, nothing made", () =>
  withDlsm(async (dlsm, args) => {
    dlsm.environment.PATH = dlsm.path("nothing");
    const { exitCode, stderr } = await dlsm.run(...args);
    assert.is(exitCode, 3);
    assert.match(stderr, /not installed here: .*qemu-io/);
    assert.match(stderr, /apt-get install .*qemu-utils/);
  }));

withTools(
  "a folder that is not there and a disk that is too small are refused",
  () =>
    withDlsm(async (dlsm) => {
      const missing = await dlsm.run("demo", "--folder", dlsm.path("nowhere"));
      assert.is(missing.exitCode, 3);
      assert.match(missing.stderr, /nowhere cannot be used/);
      const small = await dlsm.run("demo", "--size", "1MiB");
      assert.is(small.exitCode, 2);
      assert.match(small.stderr, /too small/);
    }),
);

test.run();
