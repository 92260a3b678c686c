/** tgtd cannot write the disk that it exports: shown by an initiator that tries, and by tgtd's descriptors. */
import { createHash } from "node:crypto";
import { chmodSync, chownSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Daemon } from "../../src/node-iscsi-target/mod.ts";
import { attachLoop, needingLoop } from "../helpers/loop-device.ts";
import { findProgram, needing } from "../helpers/needs.ts";
import { tempFolder } from "../helpers/temp.ts";
import { exportOptions, hasNamespace, makeImage, withDaemon } from "./helpers.ts";
import { closedToOthers, nobody, runAsNobody } from "../helpers/nobody.ts";
import { Probe } from "./probe.ts";
import { accessModesOf, tryToWrite } from "./write-attempts.ts";

const unprivileged = join(import.meta.dirname!, "unprivileged.ts");
const test = suite("writes");
const real = needing(test, ["tgtd", "tgtadm"]);
const asNobody = await needingLoop(
  test,
  needing(test, ["tgtd", "tgtadm", "setpriv", "unshare"], { root: true, unless: await closedToOthers() }),
);
const withLoop = await needingLoop(test, real);

/** Without a view tgtd has what this user may write open for writing; then only the LUN's flag keeps it from that. */
const openMode = hasNamespace ? "O_RDONLY" : "O_RDWR";

/** tgt's own refusals: write protected; a field of the CDB, or the whole command, that it does not know. */
const refusals = ["7/27/0", "5/24/0", "5/20/0"];

const contentOf = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");

function assertRefused(results: Record<string, string>): void {
  assert.ok(Object.keys(results).length > 10);
  for (const [command, result] of Object.entries(results)) {
    assert.ok(refusals.includes(result), `${command} ended with ${result}`);
  }
}

/** As if the LUN had never been made read-only, and could be unmapped. */
async function liftReadOnly(daemon: Daemon, tid: number): Promise<void> {
  const lun = [
    "-C",
    "1",
    "--lld",
    "iscsi",
    "--op",
    "update",
    "--mode",
    "logicalunit",
    "--tid",
    `${tid}`,
    "--lun",
    "1",
  ];
  await execa(findProgram("tgtadm")!, [...lun, "--params", "readonly=0,thin_provisioning=1"], {
    cwd: daemon.folder,
    env: { TGT_IPC_SOCKET: "s" },
  });
  const [target] = await daemon.targets();
  assert.is(target!.luns[1]!.readOnly, false);
}

/** Exports the disk, tries all that could write it, with and without the LUN's flag; returns the view. */
async function tryAll(daemon: Daemon, path: string, mode: string): Promise<string> {
  const before = contentOf(path);
  const options = exportOptions(path);
  const exported = await daemon.exportDisk(options);
  assert.equal(accessModesOf(daemon.pid, path), [mode]);
  const door = { ...exported.portal, targetName: options.targetName, chap: options.chap.incoming };
  const probe = await Probe.login(door);
  assertRefused(await tryToWrite(probe));
  assert.is(contentOf(path), before);
  if (mode === "O_RDONLY") {
    await liftReadOnly(daemon, exported.tid);
    const results = await tryToWrite(probe);
    for (const command of ["WRITE(10)", "WRITE(16)", "WRITE SAME(16)", "UNMAP"]) {
      assert.not.equal(results[command], "7/27/0", `${command}: tgt's own refusal is out of the way`);
    }
    assert.is(contentOf(path), before);
  }
  probe.close();
  return exported.view;
}

real("no initiator writes a file, even if the LUN's read-only flag is lifted", async () => {
  await withDaemon(async (daemon, folder) => {
    const path = makeImage(folder) as string;
    const { mtimeNs } = statSync(path, { bigint: true });
    assert.is(await tryAll(daemon, path, openMode), hasNamespace ? "mount" : "link");
    assert.is(statSync(path, { bigint: true }).mtimeNs, mtimeNs);
  });
});

withLoop("no initiator writes a block device, even if the LUN's read-only flag is lifted", async () => {
  await withDaemon(async (daemon, folder) => {
    const file = makeImage(folder) as string;
    const loop = await attachLoop(file);
    try {
      assert.is(await tryAll(daemon, loop.path, openMode), hasNamespace ? "node" : "link");
      await execa("blockdev", ["--flushbufs", loop.path]);
      assert.is(contentOf(file), contentOf(loop.path));
    } finally {
      await daemon.kill();
      await loop.detach();
    }
  });
});

asNobody("no initiator writes what a tgtd without root exports", async () => {
  const folder = tempFolder("tgt");
  chmodSync(folder, 0o755);
  const own = join(folder, "own");
  mkdirSync(own);
  chownSync(own, nobody, nobody);
  const file = makeImage(folder, "of-root.img") as string;
  const loop = await attachLoop(makeImage(folder, "loop.img") as string);
  const { rdev } = statSync(loop.path);
  const node = async (name: string, mode: number, owner: number) => {
    const path = join(folder, name);
    await execa("mknod", [path, "b", `${rdev >> 8}`, `${rdev & 0xff}`]);
    chownSync(path, owner, owner);
    chmodSync(path, mode);
    return path;
  };
  try {
    chmodSync(file, 0o644);
    const ownFile = makeImage(own, "own.img") as string;
    chownSync(ownFile, nobody, nobody);
    // What a user may write is only kept from tgtd by a view; and a device has none without root.
    const disks: [string, string][] = [
      [file, "O_RDONLY"],
      [ownFile, hasNamespace ? "O_RDONLY" : "O_RDWR"],
      [await node("readable", 0o444, 0), "O_RDONLY"],
      [await node("owned", 0o600, nobody), "O_RDWR"],
    ];
    for (const [path, mode] of disks) {
      const before = contentOf(path);
      const { stdout, stderr } = await runAsNobody(unprivileged, join(own, "d"), path);
      assert.is(stderr, "", path);
      const { attempts, modes } = JSON.parse(stdout);
      assert.equal(modes, [mode], path);
      assertRefused(attempts);
      assert.is(contentOf(path), before, path);
    }
  } finally {
    await loop.detach();
  }
});

test.run();
