import { execa } from "execa";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type Daemon, isTgtError, type TgtReason } from "../../src/node-iscsi-target/mod.ts";
import { findProgram, needing } from "../helpers/needs.ts";
import { tempFolder } from "../helpers/temp.ts";
import {
  exportOptions,
  hasNamespace,
  loopback,
  makeImage,
  mutualChap,
  until,
  withDaemon,
} from "./helpers.ts";
import { closedToOthers, nobody, runAsNobody } from "../helpers/nobody.ts";
import { loginResult, Probe } from "./probe.ts";

const unprivileged = join(import.meta.dirname!, "unprivileged.ts");
const test = suite("export");
const real = needing(test, ["tgtd", "tgtadm"]);
const withLoop = needing(test, ["tgtd", "tgtadm", "losetup"], { root: true });
const asNobody = needing(test, ["tgtd", "tgtadm", "setpriv", "unshare"], {
  root: true,
  unless: await closedToOthers(),
});

const isDeno = "Deno" in globalThis;

async function reasonOf(promise: Promise<unknown>): Promise<TgtReason | "none"> {
  try {
    await promise;
    return "none";
  } catch (error) {
    if (!isTgtError(error)) throw error;
    return error.reason;
  }
}

/** What of an export is in the daemon and its folder. */
async function leftovers(daemon: Daemon): Promise<unknown[]> {
  const mounts = readFileSync(`/proc/${daemon.pid}/mountinfo`, "utf8").split("\n");
  return [
    ...(await daemon.targets()),
    ...(await daemon.control.accounts()),
    ...readdirSync(join(daemon.folder, "disks")),
    ...mounts.filter((line) => line.includes(`${daemon.folder}/disks`)),
  ];
}

real("exportDisk: the disk can be read, by whoever knows the secret, and not written", async () => {
  await withDaemon(async (daemon, folder) => {
    const path = makeImage(folder);
    const before = readFileSync(path);
    const options = exportOptions(path);
    const exported = await daemon.exportDisk(options);
    assert.is(exported.lun, 1);
    assert.is(exported.sizeBytes, 1 << 20);
    assert.is(exported.blockBytes, 512);
    assert.equal(exported.portal, (await daemon.portals())[0]);
    assert.is(exported.openedReadOnly, hasNamespace);
    assert.is(exported.view, hasNamespace ? "mount" : "link");

    const [target] = await daemon.targets();
    assert.is(target!.luns[1]!.readOnly, true);
    assert.is(target!.luns[1]!.serial, options.serial);
    assert.is(target!.luns[1]!.scsiId, options.serial);
    assert.equal(target!.allowed, ["127.0.0.1"]);
    assert.is(target!.nopIntervalSeconds, 5);
    assert.is(target!.nopCount, 3);

    const door = { ...exported.portal, targetName: options.targetName };
    const probe = await Probe.login({ ...door, chap: options.chap.incoming });
    assert.is((await probe.read(0, 8)).compare(before.subarray(0, 4096)), 0);
    assert.is((await probe.read(2047, 1)).compare(before.subarray(-512)), 0);
    assert.is(await probe.write(0, Buffer.alloc(512, 1)), "7/27/0");
    const [connection] = await daemon.connections(exported.tid);
    assert.is(connection!.initiator, "iqn.2024-01.test:probe");
    assert.is(connection!.address, "127.0.0.1");
    const disk = (await daemon.statistics(exported.tid)).find((each) => each.lun === 1);
    assert.is(disk!.sid, connection!.sid);
    assert.ok(disk!.read.doneBytes >= 4096 + 512);
    probe.close();

    assert.is(await loginResult(door), "login 2/1");
    const wrong = { ...options.chap.incoming, secret: "not-the-secret" };
    assert.is(await loginResult({ ...door, chap: wrong }), "login 2/1");
    assert.is(readFileSync(path).compare(before), 0);
  });
});

real("exportDisk: nobody but the one address may log in", async () => {
  await withDaemon(async (daemon, folder) => {
    const options = exportOptions(makeImage(folder), { allow: "127.0.0.2" });
    const exported = await daemon.exportDisk(options);
    const door = { ...exported.portal, targetName: options.targetName, chap: options.chap.incoming };
    assert.is(await loginResult({ ...door, localAddress: "127.0.0.1" }), "login 2/3");
    assert.is(await loginResult({ ...door, localAddress: "127.0.0.3" }), "login 2/3");
    assert.is(await loginResult({ ...door, localAddress: "127.0.0.2" }), "logged in");
  });
});

real("exportDisk: mutual CHAP, the target proves itself", async () => {
  await withDaemon(async (daemon, folder) => {
    const options = exportOptions(makeImage(folder), { chap: mutualChap });
    const exported = await daemon.exportDisk(options);
    const door = { ...exported.portal, targetName: options.targetName, chap: mutualChap.incoming };
    assert.is(await loginResult({ ...door, mutual: mutualChap.outgoing }), "logged in");
    const other = { ...mutualChap.outgoing, secret: "what-it-does-not-know" };
    assert.is(await loginResult({ ...door, mutual: other }), "the target could not prove itself");
    // The account that proves the target is no way in.
    assert.is(await loginResult({ ...door, chap: mutualChap.outgoing }), "login 2/1");
  });
});

real("exportDisk: blocks of 4096 bytes, and O_DIRECT", async () => {
  await withDaemon(async (daemon, folder) => {
    const path = makeImage(folder);
    const options = exportOptions(path, { blockBytes: 4096, direct: true });
    const exported = await daemon.exportDisk(options);
    assert.is(exported.blockBytes, 4096);
    const [target] = await daemon.targets();
    assert.is(target!.luns[1]!.blockBytes, 4096);
    assert.equal(target!.luns[1]!.backingFlags, ["direct"]);
    const door = { ...exported.portal, targetName: options.targetName, chap: options.chap.incoming };
    const probe = await Probe.login(door);
    assert.is((await probe.read(0, 2, 4096)).compare(readFileSync(path).subarray(0, 8192)), 0);
    probe.close();
  });
});

const oddNames: (string | Buffer)[] = [
  "a,b.img",
  "with space.img",
  "quote'\"`$(x).img",
  "new\nline\ttab.img",
  "back\\slash\\040.img",
  "-o remount.img",
  "ü€.img",
  // Not UTF-8.
  ...(isDeno ? [] : [Buffer.from("\xff\xfe,\x80.img", "latin1")]),
];

for (const readOnlyView of [true, false]) {
  real(`exportDisk: odd paths, ${readOnlyView ? "through a view" : "through a link"}`, async () => {
    await withDaemon(async (daemon, folder) => {
      for (const name of oddNames) {
        const label = JSON.stringify(name.toString());
        const path = makeImage(folder, name, label);
        const options = exportOptions(path);
        const exported = await daemon.exportDisk(options);
        assert.is(exported.openedReadOnly, readOnlyView && hasNamespace, label);
        assert.is(exported.view, readOnlyView && hasNamespace ? "mount" : "link", label);
        const door = { ...exported.portal, targetName: options.targetName, chap: options.chap.incoming };
        const probe = await Probe.login(door);
        assert.is((await probe.read(0, 1)).compare(Buffer.alloc(512, label)), 0, label);
        probe.close();
      }
      const [first] = await daemon.targets();
      for (const target of await daemon.targets()) await daemon.removeTarget(target.name);
      await daemon.removeTarget(first!.tid);
      assert.equal(await leftovers(daemon), []);
    }, { readOnlyView });
  });
}

if (isDeno) {
  real("exportDisk: under Deno, a path that is not UTF-8 is refused", async () => {
    await withDaemon(async (daemon) => {
      const path = Buffer.from("/tmp/\xff.img", "latin1");
      assert.is(await reasonOf(daemon.exportDisk(exportOptions(path))), "invalidArgument");
    });
  });
}

real("exportDisk: a relative path", async () => {
  await withDaemon(async (daemon) => {
    const exported = await daemon.exportDisk(exportOptions("package.json", {})).catch((error) => error);
    // It is found; its size is that of a text.
    assert.ok(
      isTgtError(exported, "badDisk") ? /multiple of 512/.test(exported.message) : exported.tid === 1,
    );
  });
});

real("exportDisk: disks that cannot be exported change nothing", async () => {
  await withDaemon(async (daemon, folder) => {
    const odd = makeImage(folder, "odd.img", "data", 4097);
    const notOf4096 = makeImage(folder, "small.img", "data", 4096 + 512);
    writeFileSync(join(folder, "empty.img"), "");
    const bad: [Parameters<Daemon["exportDisk"]>[0], TgtReason, RegExp][] = [
      [exportOptions(odd), "badDisk", /4097 bytes long.*multiple of 512/],
      [exportOptions(notOf4096, { blockBytes: 4096 }), "badDisk", /multiple of 4096/],
      [exportOptions(join(folder, "empty.img")), "badDisk", /is empty/],
      [exportOptions(folder), "badDisk", /is a directory/],
      [exportOptions("/dev/zero"), "badDisk", /neither a file nor a block device/],
      [exportOptions(join(folder, "nowhere.img")), "badDisk", /does not exist/],
      [exportOptions("a\0b"), "badDisk", /null bytes/],
      [exportOptions(notOf4096, { targetName: "disk" }), "invalidArgument", /no target name/],
      [exportOptions(notOf4096, { serial: "a,b" }), "invalidArgument", /serial/],
      [exportOptions(notOf4096, { allow: "10.0.0.0/8" }), "invalidArgument", /not the IP address/],
      [exportOptions(notOf4096, { allow: "::1" }), "invalidArgument", /IPv6.*127\.0\.0\.1 only/],
    ];
    for (const [options, reason, message] of bad) {
      const error = await daemon.exportDisk(options).catch((error) => error);
      assert.ok(isTgtError(error, reason), String(error));
      assert.match(error.message, message);
    }
    assert.equal(await leftovers(daemon), []);
  });
});

real("exportDisk: what fails half-way is undone, and what was there stays", async () => {
  await withDaemon(async (daemon, folder) => {
    const path = makeImage(folder);
    const first = exportOptions(path, { chap: mutualChap });
    await daemon.exportDisk(first);
    const before = await daemon.targets();

    assert.is(await reasonOf(daemon.exportDisk({ ...first, serial: "other" })), "targetExists");
    const sameUser = exportOptions(path, { chap: { incoming: mutualChap.incoming } });
    assert.is(await reasonOf(daemon.exportDisk(sameUser)), "userExists");
    const secondUserTaken = exportOptions(path, {
      chap: { incoming: { user: "new", secret: "0123456789ab" }, outgoing: mutualChap.outgoing },
    });
    assert.is(await reasonOf(daemon.exportDisk(secondUserTaken)), "userExists");

    assert.equal(await daemon.targets(), before);
    assert.equal((await daemon.control.accounts()).sort(), ["initiator", "target"]);
    const exported = await daemon.exportDisk(exportOptions(path));
    assert.is(exported.tid, 2);
    assert.equal(readdirSync(join(daemon.folder, "disks")).sort(), ["1", "2"]);
  });
});

real("exportDisk: an account that cannot be bound is undone too", async () => {
  const folder = tempFolder("tgt");
  const tgtadm = join(folder, "tgtadm");
  const refuse = 'case "$*" in *"bind --mode account"*) echo "tgtadm: invalid request" >&2; exit 22;; esac';
  writeFileSync(tgtadm, `#!/bin/sh\n${refuse}; exec ${findProgram("tgtadm")} "$@"\n`);
  chmodSync(tgtadm, 0o755);
  await withDaemon(async (daemon) => {
    assert.is(await reasonOf(daemon.exportDisk(exportOptions(makeImage(folder)))), "invalidRequest");
    assert.equal(await leftovers(daemon), []);
  }, { programs: { tgtadm } });
});

real("exportDisk: a LUN that does not become read-only is taken away before anybody may log in", async () => {
  const folder = tempFolder("tgt");
  const log = join(folder, "argv");
  const tgtadm = join(folder, "tgtadm");
  // Leaves the one update out, as if tgtd had ignored it.
  const body = `echo "$*" >>'${log}'; case "$*" in *readonly=1*) exit 0;; esac; exec ${
    findProgram("tgtadm")
  } "$@"`;
  writeFileSync(tgtadm, `#!/bin/sh\n${body}\n`);
  chmodSync(tgtadm, 0o755);
  await withDaemon(async (daemon) => {
    assert.is(await reasonOf(daemon.exportDisk(exportOptions(makeImage(folder)))), "notReadOnly");
    assert.equal(await leftovers(daemon), []);
    assert.not.match(readFileSync(log, "utf8"), "initiator-address");
  }, { programs: { tgtadm }, readOnlyView: false });
});

real("exportDisk: no secret in any argv, file or log", async () => {
  const folder = tempFolder("tgt");
  const log = join(folder, "argv");
  const tgtadm = join(folder, "tgtadm");
  writeFileSync(tgtadm, `#!/bin/sh\necho "$*" >>'${log}'\nexec ${findProgram("tgtadm")} "$@"\n`);
  chmodSync(tgtadm, 0o755);
  const secrets = ["needle-incoming-1", "needle-outgoing-2"];
  const chap = {
    incoming: { user: "u", secret: secrets[0]! },
    outgoing: { user: "v", secret: secrets[1]! },
  };
  await withDaemon(async (daemon) => {
    let seen = "";
    let isDone = false;
    const watch = (async () => {
      while (!isDone) {
        seen += commandLines();
        await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    const options = exportOptions(makeImage(folder), { chap });
    const exported = await daemon.exportDisk(options);
    const door = { ...exported.portal, targetName: options.targetName, chap: chap.incoming };
    assert.is(await loginResult({ ...door, mutual: chap.outgoing }), "logged in");
    isDone = true;
    await watch;
    assert.match(seen, "tgtd");
    for (const name of readdirSync(daemon.folder)) {
      const path = join(daemon.folder, name);
      if (statSync(path).isFile()) seen += readFileSync(path, "latin1");
    }
    seen += readFileSync(log, "utf8");
    assert.match(seen, "--user u");
    assert.is(seen.includes("needle"), false);
  }, { programs: { tgtadm } });
});

function commandLines(): string {
  const read = (pid: string) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "latin1");
    } catch {
      return "";
    }
  };
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(read).join("\n");
}

real("removeTarget: live sessions, one of them stalled, with reads in flight", async () => {
  await withDaemon(async (daemon, folder) => {
    const path = makeImage(folder, "disk.img", "data", 64 << 20);
    const options = exportOptions(path);
    const other = exportOptions(path);
    const exported = await daemon.exportDisk(options);
    await daemon.exportDisk(other);
    const door = { ...exported.portal, targetName: options.targetName, chap: options.chap.incoming };
    const busy = await Probe.login(door);
    const stalled = await Probe.login({ ...door, initiatorName: "iqn.2024-01.test:stalled" });
    await busy.read(0, 1);
    await stalled.read(0, 1);
    stalled.pause();
    for (let index = 0; index < 24; index++) {
      busy.sendRead(index * 2048, 2048);
      stalled.sendRead(index * 2048, 2048);
    }
    assert.is((await daemon.connections(exported.tid)).length, 2);
    await daemon.removeTarget(options.targetName);

    await until(() => busy.closed);
    stalled.close();
    assert.equal((await daemon.targets()).map((target) => target.name), [other.targetName]);
    assert.equal(await daemon.control.accounts(), [other.chap.incoming.user]);
    assert.equal(readdirSync(join(daemon.folder, "disks")), ["2"]);
    assert.is(await loginResult(door), "login 2/3");
    const open = { ...exported.portal, targetName: other.targetName };
    assert.is(await loginResult(open), "login 2/1", "the other target still asks for proof");
    assert.is(await loginResult({ ...open, chap: other.chap.incoming }), "logged in");
    await daemon.removeTarget(options.targetName);
    // The stalled one is given up when it leaves two pings, a second apart, unanswered.
  }, { nopIntervalSeconds: 1, nopCount: 1 });
});

real("stop: a peer that takes no data does not hold it up", async () => {
  await withDaemon(async (daemon, folder) => {
    const options = exportOptions(makeImage(folder, "disk.img", "data", 64 << 20));
    const exported = await daemon.exportDisk(options);
    const door = { ...exported.portal, targetName: options.targetName, chap: options.chap.incoming };
    const stalled = await Probe.login(door);
    await stalled.read(0, 1);
    stalled.pause();
    for (let index = 0; index < 24; index++) stalled.sendRead(index * 2048, 2048);
    await daemon.stop();
    stalled.close();
    assert.is(daemon.isAlive(), false);
    assert.is(existsSync(daemon.folder), false);
  }, { nopIntervalSeconds: 60 });
});

real("removeTarget: an account that another target needs stays", async () => {
  await withDaemon(async (daemon, folder) => {
    const options = exportOptions(makeImage(folder));
    const exported = await daemon.exportDisk(options);
    const { user } = options.chap.incoming;
    await daemon.control.newTarget(7, "iqn.2024-01.test:second");
    await daemon.control.bindAccount(7, user, "incoming");
    await daemon.control.allowAddress(7, "127.0.0.1");
    await daemon.removeTarget(exported.tid);
    assert.equal(await daemon.control.accounts(), [user]);
    const second = { ...exported.portal, targetName: "iqn.2024-01.test:second" };
    assert.is(await loginResult(second), "login 2/1");
  });
});

real("stop: with a live session", async () => {
  await withDaemon(async (daemon, folder) => {
    const options = exportOptions(makeImage(folder));
    const exported = await daemon.exportDisk(options);
    const door = { ...exported.portal, targetName: options.targetName, chap: options.chap.incoming };
    const probe = await Probe.login(door);
    await daemon.stop();
    await until(() => probe.closed);
    assert.is(existsSync(daemon.folder), false);
  });
});

real("control: typed errors of the single calls", async () => {
  await withDaemon(async (daemon, folder) => {
    const { control } = daemon;
    await daemon.exportDisk(exportOptions(makeImage(folder)));
    const lun = { tid: 1, lun: 1, path: "disks/1", blockBytes: 512, direct: false };
    assert.is(await reasonOf(control.newTarget(1, "iqn.2024-01.test:x")), "targetExists");
    assert.is(await reasonOf(control.newLun(lun)), "lunExists");
    assert.is(await reasonOf(control.newLun({ ...lun, tid: 9 })), "noTarget");
    assert.is(await reasonOf(control.deleteTarget(9, false)), "noTarget");
    assert.is(await reasonOf(control.deleteLun(1, 9)), "noLun");
    assert.is(await reasonOf(control.deleteAccount("nobody")), "noUser");
    assert.is(await reasonOf(control.denyAddress(1, "10.0.0.9")), "noBinding");
    assert.is(await reasonOf(control.allowAddress(1, "127.0.0.1")), "bindingExists");
    assert.is(await reasonOf(control.deleteConnection(1, 9, 0)), "noSession");
    assert.is(await reasonOf(control.statistics(9)), "noTarget");
    assert.is(await reasonOf(control.shutDown()), "invalidRequest");
    await control.updateTarget(1, "HeaderDigest", "CRC32C");
    const missing = control.newLun({ ...lun, lun: 2, path: "disks/nowhere" });
    assert.match((await missing.catch((error) => error)).message, "No such file or directory");
  });
});

withLoop("exportDisk: a block device, and one with blocks of 4096 bytes", async () => {
  await withDaemon(async (daemon, folder) => {
    const path = makeImage(folder, "disk.img", "device") as string;
    for (const blockBytes of [512, 4096]) {
      const { stdout } = await execa("losetup", [
        "--find",
        "--show",
        "--sector-size",
        String(blockBytes),
        path,
      ]);
      const device = stdout.trim();
      try {
        const options = exportOptions(device);
        const exported = await daemon.exportDisk(options);
        assert.is(exported.tid, 1, "the name of the first view is free again");
        assert.is(exported.sizeBytes, 1 << 20);
        assert.is(exported.blockBytes, blockBytes);
        assert.is(exported.openedReadOnly, hasNamespace);
        assert.is(exported.view, hasNamespace ? "node" : "link");
        const door = { ...exported.portal, targetName: options.targetName, chap: options.chap.incoming };
        const probe = await Probe.login(door);
        assert.is((await probe.read(0, 1, blockBytes)).compare(Buffer.alloc(blockBytes, "device")), 0);
        probe.close();
        await daemon.removeTarget(exported.tid);
        if (blockBytes === 4096) {
          assert.is(await reasonOf(daemon.exportDisk({ ...options, blockBytes: 512 })), "badDisk");
        }
      } finally {
        await execa("losetup", ["--detach", device]);
      }
    }
    assert.equal(await leftovers(daemon), []);
  });
});

asNobody("exportDisk: without root, also for a disk that the user may only read, or not at all", async () => {
  const folder = tempFolder("tgt");
  // A user namespace may not take nosuid and nodev away from what it mounts.
  await execa("mount", ["-t", "tmpfs", "-o", "size=4m,mode=0755,nosuid,nodev", "none", folder]);
  const own = join(folder, "own");
  mkdirSync(own);
  chownSync(own, nobody, nobody);
  const run = (path: string) => runAsNobody(unprivileged, join(own, "d"), path);
  try {
    const disks = [makeImage(folder, "of-root.img"), makeImage(own, "own.img")] as string[];
    chownSync(disks[1]!, nobody, nobody);
    for (const path of disks) {
      chmodSync(path, 0o644);
      const { stdout, stderr } = await run(path);
      assert.is(stderr, "");
      const result = JSON.parse(stdout);
      assert.is(result.data, "data");
      assert.equal(result.views, []);
      assert.is(result.openedReadOnly, result.hasNamespace || path === disks[0]);
      assert.is(result.view, result.hasNamespace ? "mount" : "link");
      assert.is(existsSync(join(own, "d")), false);
    }
    chmodSync(disks[0]!, 0o600);
    assert.match((await run(disks[0]!)).stderr, /Permission denied/);
  } finally {
    await execa("umount", [folder]);
  }
});

real("exportDisk: a disk that changes its size meanwhile is refused", async () => {
  const folder = tempFolder("tgt");
  const path = makeImage(folder) as string;
  const tgtadm = join(folder, "tgtadm");
  const body = `case "$*" in *readonly=1*) truncate -s 2M '${path}';; esac; exec ${
    findProgram("tgtadm")
  } "$@"`;
  writeFileSync(tgtadm, `#!/bin/sh\n${body}\n`);
  chmodSync(tgtadm, 0o755);
  await withDaemon(async (daemon) => {
    assert.is(await reasonOf(daemon.exportDisk(exportOptions(path))), "badDisk");
    assert.equal(await leftovers(daemon), []);
    truncateSync(path, 1 << 20);
  }, { programs: { tgtadm }, portal: loopback });
});

test.run();
