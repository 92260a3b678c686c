import { execa } from "execa";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { adoptDaemon, isTgtError, startDaemon, type TgtReason } from "../../src/node-iscsi-target/mod.ts";
import { daemonsIn, identify, isRunning } from "../../src/node-iscsi-target/process.ts";
import { needing } from "../helpers/needs.ts";
import { tempFolder } from "../helpers/temp.ts";
import { exportOptions, hasNamespace, loopback, makeImage, until, withDaemon } from "./helpers.ts";

const test = suite("daemon");
const real = needing(test, ["tgtd", "tgtadm"]);
const asRoot = needing(test, ["tgtd", "tgtadm", "mount", "umount"], { root: true });

const runtimeArguments = "Deno" in globalThis ? ["run", "-A"] : ["--disable-warning=ExperimentalWarning"];

/** The reason of the TgtError that `promise` rejects with. */
async function reasonOf(promise: Promise<unknown>): Promise<TgtReason | "none"> {
  try {
    await promise;
    return "none";
  } catch (error) {
    if (!isTgtError(error)) throw error;
    return error.reason;
  }
}

/** A program in the way of the real one. */
function script(folder: string, name: string, body: string): string {
  const path = join(folder, name);
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
  return path;
}

real("startDaemon: listens on the wanted portal only, in a private folder", async () => {
  await withDaemon(async (daemon) => {
    const portals = await daemon.portals();
    assert.is(portals.length, 1);
    assert.is(portals[0]!.address, "127.0.0.1");
    assert.ok(portals[0]!.port > 0);
    assert.is(daemon.isAlive(), true);
    assert.is(statSync(daemon.folder).mode & 0o777, 0o700);
    for (const name of ["log", "state.json"]) {
      assert.is(statSync(join(daemon.folder, name)).mode & 0o777, 0o600);
    }
    const system = await daemon.control.system();
    assert.is(system.drivers.get("iscsi"), "ready");
  });
});

real("startDaemon: a given port, on another loopback address", async () => {
  const server = createServer().unref().listen(0, "127.0.0.3");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  await withDaemon(async (daemon) => {
    assert.equal(await daemon.portals(), [{ address: "127.0.0.3", port }]);
  }, { portal: { address: "127.0.0.3", port } });
});

const hasIpv6 = Object.values(networkInterfaces()).flat().some((each) => each?.address === "::1");
(hasIpv6 ? real : test.skip)("startDaemon: IPv6", async () => {
  await withDaemon(async (daemon) => {
    const portals = await daemon.portals();
    assert.is(portals.length, 1);
    assert.is(portals[0]!.address, "::1");
  }, { portal: { address: "::1", port: 0 } });
});

real("startDaemon: port taken, address of nobody: a clear error, and nothing is left", async () => {
  const server = createServer().unref().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as { port: number };
  const folder = join(tempFolder("tgt"), "d");
  assert.is(await reasonOf(startDaemon({ folder, portal: { address: "127.0.0.1", port } })), "portInUse");
  const nobody = { address: "203.0.113.77", port: 0 };
  assert.is(await reasonOf(startDaemon({ folder, portal: nobody })), "addressNotAvailable");
  assert.is(existsSync(folder), false);
  assert.equal(daemonsIn([folder]), []);
  await new Promise((resolve) => server.close(resolve));
});

real("startDaemon: a daemon that listens on all addresses is killed", async () => {
  const folder = tempFolder("tgt");
  const server = createServer().unref().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as { port: number };
  // With a portal that is taken, tgtd goes on with 0.0.0.0:3260 and [::]:3260.
  const tgtd = script(folder, "tgtd", `exec tgtd -f -C 1 --iscsi portal=127.0.0.1:${port}`);
  const start = startDaemon({ folder: join(folder, "d"), portal: loopback, programs: { tgtd } });
  assert.is(await reasonOf(start), "wildcardPortal");
  assert.equal(daemonsIn([join(folder, "d")]), []);
  assert.is(existsSync(join(folder, "d")), false);
  await new Promise((resolve) => server.close(resolve));
});

test("startDaemon: bad arguments are refused before anything is done", async () => {
  const folder = join(tempFolder("tgt"), "d");
  const all = { address: "0.0.0.0", port: 3260 };
  assert.is(await reasonOf(startDaemon({ folder, portal: all })), "invalidArgument");
  assert.is(await reasonOf(startDaemon({ folder, portal: loopback, ioThreads: 0 })), "invalidArgument");
  const programs = { tgtd: join(folder, "nowhere") };
  assert.is(await reasonOf(startDaemon({ folder, portal: loopback, programs })), "notInstalled");
  assert.is(existsSync(folder), false);
});

test("startDaemon: tgt is not installed", async () => {
  const programs = { tgtadm: "/nonexistent/tgtadm", tgtd: process.execPath };
  try {
    await startDaemon({ folder: join(tempFolder("tgt"), "d"), portal: loopback, programs });
    assert.unreachable();
  } catch (error) {
    assert.ok(isTgtError(error, "notInstalled"));
    assert.is((error as { hint?: string }).hint, "apt install tgt");
  }
});

real("startDaemon: a path that is too long for a socket", async () => {
  const base = tempFolder("tgt");
  const fits = join(base, "a".repeat(107 - base.length - "//s.1".length));
  await withDaemon(async (daemon) => {
    await daemon.control.newAccount({ user: "u", secret: "0123456789ab" });
    assert.equal(await daemon.control.accounts(), ["u"]);
  }, { folder: fits });
  assert.is(await reasonOf(startDaemon({ folder: `${fits}a`, portal: loopback })), "invalidArgument");
  assert.equal(readdirSync(base), []);
});

real("startDaemon: a folder with an odd name, by way of a symbolic link", async () => {
  const base = tempFolder("tgt");
  mkdirSync(join(base, "odd, name\\ü"));
  symlinkSync(join(base, "odd, name\\ü"), join(base, "link"));
  const path = makeImage(base);
  await withDaemon(async (daemon) => {
    const exported = await daemon.exportDisk(exportOptions(path));
    assert.is(exported.openedReadOnly, hasNamespace);
  }, { folder: join(base, "link") });
});

real("startDaemon: a program that is no tgtd", async () => {
  const folder = tempFolder("tgt");
  const tgtd = script(folder, "tgtd", "echo this is no daemon >&2; exit 3");
  try {
    await startDaemon({ folder: join(folder, "d"), portal: loopback, programs: { tgtd } });
    assert.unreachable();
  } catch (error) {
    assert.ok(isTgtError(error, "startFailed"));
    assert.match((error as Error).message, "this is no daemon");
  }
});

real("startDaemon: several side by side, one in each folder", async () => {
  await withDaemon(async (first) => {
    await withDaemon(async (second, folder) => {
      assert.is.not(first.pid, second.pid);
      await second.exportDisk(exportOptions(makeImage(folder)));
      assert.is((await first.targets()).length, 0);
      assert.is((await second.targets()).length, 1);
      assert.is(await reasonOf(startDaemon({ folder: first.folder, portal: loopback })), "alreadyRunning");
      assert.is(first.isAlive(), true);
    });
  });
});

real("stop: no process, file or folder is left; again it does nothing", async () => {
  await withDaemon(async (daemon, folder) => {
    await daemon.exportDisk(exportOptions(makeImage(folder)));
    await daemon.stop();
    assert.is(daemon.isAlive(), false);
    assert.equal(readdirSync(folder), ["disk.img"]);
    await daemon.stop();
    assert.is(await reasonOf(daemon.targets()), "noDaemon");
    assert.is(await adoptDaemon(daemon.folder), undefined);
  });
});

real("stop: files of others in the folder stay", async () => {
  await withDaemon(async (daemon) => {
    const path = join(daemon.folder, "of-another");
    writeFileSync(path, "");
    await daemon.stop();
    assert.equal(readdirSync(daemon.folder), ["of-another"]);
  });
});

real("the daemon outlives its starter, and is adopted", async () => {
  const folder = join(tempFolder("tgt"), "d");
  const helper = join(import.meta.dirname!, "start-and-leave.ts");
  const { stdout } = await execa(process.execPath, [...runtimeArguments, helper, folder]);
  const daemon = (await adoptDaemon(folder))!;
  try {
    assert.is(String(daemon.pid), stdout.trim());
    assert.is(daemon.isAlive(), true);
    assert.is((await daemon.portals()).length, 1);
    const exported = await daemon.exportDisk(exportOptions(makeImage(join(folder, ".."))));
    assert.is(exported.openedReadOnly, hasNamespace);
  } finally {
    await daemon.stop();
  }
  assert.is(existsSync(folder), false);
});

real("adoptDaemon: nothing there, nonsense there, or another process with that pid", async () => {
  const folder = tempFolder("tgt");
  assert.is(await adoptDaemon(join(folder, "nowhere")), undefined);
  assert.is(await adoptDaemon(folder), undefined);
  const own = identify(process.pid)!;
  const state = { version: 1, ...own, namespace: "none", tgtadm: "/usr/sbin/tgtadm" };
  const stateless = ["", "null", "7", "{", JSON.stringify({ ...state, pid: "1" })];
  const reused = [{ startTime: "1" }, { bootId: "another" }, { pid: 2 ** 30 }].map((other) =>
    JSON.stringify({ ...state, ...other })
  );
  for (const text of [...stateless, ...reused]) {
    writeFileSync(join(folder, "state.json"), text);
    assert.is(await adoptDaemon(folder), undefined, text);
  }
});

real("kill -9: it is noticed, calls say so, and a new one starts in the same folder", async () => {
  await withDaemon(async (daemon, folder) => {
    const path = makeImage(folder);
    await daemon.exportDisk(exportOptions(path));
    process.kill(daemon.pid, "SIGKILL");
    await until(() => !daemon.isAlive());
    assert.is(await reasonOf(daemon.targets()), "noDaemon");
    assert.is(await reasonOf(daemon.exportDisk(exportOptions(path))), "noDaemon");
    assert.is(await reasonOf(daemon.control.newAccount({ user: "u", secret: "0123456789ab" })), "noDaemon");
    assert.is(await adoptDaemon(daemon.folder), undefined);

    const next = await startDaemon({ folder: daemon.folder, portal: loopback });
    try {
      assert.equal(await next.targets(), []);
      const exported = await next.exportDisk(exportOptions(path));
      assert.is(exported.openedReadOnly, hasNamespace);
      assert.is(daemon.isAlive(), false);
    } finally {
      await next.stop();
    }
    assert.equal(readdirSync(folder), ["disk.img"]);
  });
});

real("startDaemon: ends what a start that was cut short left behind", async () => {
  await withDaemon(async (daemon) => {
    rmSync(join(daemon.folder, "state.json"));
    const stray = identify(daemon.pid)!;
    assert.is(await adoptDaemon(daemon.folder), undefined);
    const next = await startDaemon({ folder: daemon.folder, portal: loopback });
    assert.is(isRunning(stray), false);
    await next.stop();
  });
});

real("a daemon that does not answer: calls end, and stop kills it", async () => {
  await withDaemon(async (daemon) => {
    process.kill(daemon.pid, "SIGSTOP");
    const hung = (await adoptDaemon(daemon.folder, 300))!;
    assert.is(await reasonOf(hung.targets()), "timeout");
    assert.is(await reasonOf(hung.control.newAccount({ user: "u", secret: "0123456789ab" })), "timeout");
    await hung.stop();
    assert.is(daemon.isAlive(), false);
    assert.is(existsSync(daemon.folder), false);
  });
});

asRoot("a file system that is unmounted while tgtd runs is not kept busy", async () => {
  const base = tempFolder("tgt");
  await execa("mount", ["-t", "tmpfs", "-o", "size=1m", "none", base]);
  try {
    await execa("mount", ["--make-shared", base]);
    mkdirSync(join(base, "sub"));
    await execa("mount", ["-t", "tmpfs", "-o", "size=1m", "none", join(base, "sub")]);
    await withDaemon(async (daemon) => {
      const seen = () => readFileSync(`/proc/${daemon.pid}/mountinfo`, "utf8").includes(join(base, "sub"));
      assert.is(seen(), true);
      await execa("umount", [join(base, "sub")]);
      assert.is(seen(), false);
    });
  } finally {
    await execa("umount", ["--recursive", base]);
  }
});

asRoot("the disk's file system can be unmounted after stop, and after kill -9", async () => {
  const base = tempFolder("tgt");
  await execa("mount", ["-t", "tmpfs", "-o", "size=1m,nosuid,nodev", "none", base]);
  try {
    const path = makeImage(base, "disk.img", "data", 8192);
    await withDaemon(async (daemon) => {
      await daemon.exportDisk(exportOptions(path));
      await daemon.stop();
    });
    await withDaemon(async (daemon) => {
      await daemon.exportDisk(exportOptions(path));
      process.kill(daemon.pid, "SIGKILL");
      await until(() => !daemon.isAlive());
    });
  } finally {
    await execa("umount", [base]);
  }
});

test.run();
