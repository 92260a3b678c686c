/** Bad input from the command line: each refused with its own message and exit code, and nothing changed. */
import { execFileSync } from "node:child_process";
import { chmodSync, chownSync, linkSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { hostname } from "node:os";
import { execa } from "execa";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { selfCommand } from "../../src/lib/self.ts";
import { makeDisk } from "../helpers/disk.ts";
import { attachLoop, needingLoop } from "../helpers/loop-device.ts";
import { findProgram, needing } from "../helpers/needs.ts";
import { closedToOthers } from "../helpers/nobody.ts";
import { tempFolder } from "../helpers/temp.ts";
import { startWriter } from "../helpers/writer.ts";
import { type Refusal, refuseAll, withDlsm } from "./refusal.ts";

const test = suite("bad input");
const withTgt = needing(test, ["tgtd"]);
const withQemuImg = needing(test, ["qemu-img"]);
const withLoop = await needingLoop(test, needing(test, ["tgtd", "mkfs.ext4", "blkid", "mount"]));
const asNobody = needing(test, ["setpriv"], { root: true, unless: await closedToOthers() });
const asRoot = needing(test, ["unshare", "mount"], { root: true });

/** As messages name a path: with its host. */
const at = (path: string) => `${hostname()}:${path}`;

const usage = (args: string, says: Refusal["says"], hint: Refusal["hint"]): Refusal => ({
  args: args.split(" ").filter((word) => word !== ""),
  kind: "usage",
  says,
  hint,
});

test("the command line: what is unknown, missing, too much or nonsense, and the nearest known word", () =>
  withDlsm(async (dlsm) => {
    makeDisk(dlsm.path("src"), 1, [0]);
    await refuseAll(dlsm, [
      usage("migrat src dst", ['"migrat"'], ['did you mean "migrate"?']),
      usage("frobnicate", ['"frobnicate"'], ["migrate, status"]),
      usage("constructor", ['"constructor"'], ["migrate, status"]),
      usage("--detach migrate src dst", ["--detach where a command is expected"], ["dlsm --help"]),
      usage("migrate src dst --verfy", ["dlsm migrate: unknown flag --verfy"], ["did you mean --verify?"]),
      usage("migrate src dst --xyzzy", ["unknown flag --xyzzy"], ["see dlsm migrate --help"]),
      usage("migrate src dst more", ['unexpected argument "more"'], ["SOURCE DESTINATION"]),
      usage("migrate", ["SOURCE is missing"], ["see dlsm migrate --help"]),
      usage("migrate src", ["DESTINATION is missing"], ["see dlsm migrate --help"]),
      usage("export src", ["--allow is missing"], ["see dlsm export --help"]),
      usage("migrate src dst --bwlimit", ["--bwlimit needs a value"], ["--bwlimit="]),
      usage("migrate src dst --handoff=", ["--handoff needs a value"], ["see dlsm migrate --help"]),
      usage("migrate src dst --verify=yes", ["--verify is a switch"], ["without"]),
      usage("migrate src dst --handoff nw", ['--handoff cannot be "nw"'], ['did you mean "now"?']),
      usage("migrate src dst --activate soon", ['--activate cannot be "soon"'], ["explicit, first-write"]),
      usage("migrate src dst --bwlimit fast", ['--bwlimit: "fast"'], ["100MiB/s"]),
      usage("migrate src dst --bwlimit=-1", ['--bwlimit: "-1"'], ["100MiB/s"]),
      usage("migrate src dst --block-size 5000", ["--block-size: 5000"], ["64KiB"]),
      usage("migrate src dst --block-size big", ['--block-size: "big"'], ["64KiB"]),
      usage("migrate src dst --source-timeout 5", ['--source-timeout: "5"'], ["90s"]),
      usage("migrate src dst --handoff now --handoff-command true", ["exclude each other"], ["--handoff"]),
      usage("migrate src host:disk", ["host:disk", "has to begin with /"], ["host:/PATH"]),
      usage("export user@host:/disk --allow 127.0.0.1", ["user@host:/disk is on another host"], [
        "ssh user@host",
      ]),
      usage("migrate src dst --vm web1", ["--vm", "not built in this version"], ["--handoff-command"]),
      usage("attach src dst --device=d", ["--device", "not built in this version"], ["NBD"]),
      usage("rebalance pools.toml", ["dlsm rebalance", "not built in this version"], ["dlsm migrate"]),
      usage("limit abcd1234 fast", ['"fast" is not a rate'], ["100MiB/s"]),
      usage("export src --allow host", ["--allow: host is not an IP address"], ["address"]),
      usage("export src --allow 10.0.0.0/8", ["--allow: 10.0.0.0/8"], ["one address"]),
      usage("export src --allow ::1", ["IPv4", "IPv6"], ["--portal"]),
      usage("export src --allow fe80::1%lo --portal [::1]", ["--allow", "link-local"], ["another address"]),
      usage("export src --allow 127.0.0.1 --portal 0.0.0.0", ["listen on all addresses"], ["192.0.2.7:3260"]),
      usage("export src --allow 127.0.0.1 --portal 127.0.0.1:70000", ["0 to 65535"], ["192.0.2.7:3260"]),
    ]);
  }));

test("a wrong command line prints nothing on stdout without --json; no arguments at all prints the usage", () =>
  withDlsm(async (dlsm) => {
    const wrong = await dlsm.run("migrate", "src");
    assert.equal(wrong, {
      exitCode: 2,
      stdout: "",
      stderr: "error: dlsm migrate: DESTINATION is missing\n  see dlsm migrate --help",
    });
    const nothing = await dlsm.run();
    assert.is(nothing.exitCode, 2);
    assert.match(nothing.stdout, "dlsm migrate SOURCE DESTINATION");
    assert.not.match(nothing.stdout, /^ {2}(engine|drive) /m);
  }));

test("a source that is no disk", () =>
  withDlsm(async (dlsm) => {
    const path = (name: string) => dlsm.path(name);
    mkdirSync(path("folder"));
    writeFileSync(path("empty"), "");
    writeFileSync(path("odd"), Buffer.alloc(1000));
    execFileSync("mkfifo", [path("fifo")]);
    const source = (name: string, says: string[], hint: Refusal["hint"]): Refusal[] => [
      { args: ["migrate", name, "dst"], kind: "precondition", says, hint },
      { args: ["export", name, "--allow", "127.0.0.1"], kind: "precondition", says, hint },
    ];
    await refuseAll(dlsm, [
      ...source("nowhere", [`the source ${at(path("nowhere"))} does not exist`], ["check its path"]),
      ...source("odd/disk", [`the source ${at(path("odd/disk"))} does not exist`], ["check its path"]),
      ...source("folder", [`the source ${at(path("folder"))} is a directory`], ["raw disk image"]),
      ...source("fifo", [at(path("fifo")), "neither a file nor a block device"], ["raw disk image"]),
      ...source("empty", [`${at(path("empty"))} is empty`], ["raw disk image"]),
      ...source("odd", [at(path("odd")), "1000 bytes", "multiple of 512"], ["1024", "truncate"]),
    ]);
  }));

withQemuImg("a source that is an image in another format: how to convert it", () =>
  withDlsm(async (dlsm) => {
    const formats = ["qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed"];
    for (const format of formats) {
      await execa("qemu-img", ["create", "-q", "-f", format, dlsm.path(`a ${format}`), "8M"]);
    }
    await refuseAll(
      dlsm,
      formats.map((format) => {
        const path = dlsm.path(`a ${format}`);
        return {
          args: ["migrate", path, "dst"],
          kind: "precondition",
          says: [`the source ${at(path)} is a ${format} image, not a raw disk`],
          hint: [`qemu-img convert -f ${format} -O raw '${path}' '${path}.raw'`],
        };
      }),
    );
    // The hint is a command that works.
    await execa("sh", [
      "-c",
      `qemu-img convert -f qcow2 -O raw '${dlsm.path("a qcow2")}' '${dlsm.path("raw")}'`,
    ]);
    assert.is((await dlsm.run("migrate", "raw", "dst")).exitCode, 0);
  }));

test("a destination that cannot be one", () =>
  withDlsm(async (dlsm) => {
    const path = (name: string) => dlsm.path(name);
    makeDisk(path("src"), 2, [0]);
    makeDisk(path("full"), 2, [1]);
    makeDisk(path("small"), 1, []);
    mkdirSync(path("folder"));
    const destination = (args: string[], says: string[], hint: string[]): Refusal => ({
      args: ["migrate", "src", ...args],
      kind: "precondition",
      says,
      hint,
    });
    await refuseAll(dlsm, [
      destination(["folder"], [`the destination ${at(path("folder"))} is a directory`], ["to be made in it"]),
      destination(["folder/"], [at(path("folder")), "named as a folder"], ["to be made in it"]),
      destination(["no/dst"], [`folder of the destination ${at(path("no"))} does not exist`], ["check"]),
      destination(["src/dst"], [at(path("src/dst"))], ["check its path"]),
      destination(["full"], [`${at(path("full"))} exists and is not empty`], ["--force"]),
      destination(["small"], [at(path("small")), "too small", "1048576", "2097152"], ["enlarge"]),
      destination(["small", "--force"], [at(path("small")), "too small"], ["enlarge"]),
      destination(["/dev/null"], ["neither a file nor a block device"], ["raw disk image"]),
    ]);
  }));

test("one file as source and destination, whatever it is called", () =>
  withDlsm(async (dlsm) => {
    makeDisk(dlsm.path("src"), 1, [0]);
    mkdirSync(dlsm.path("folder"));
    symlinkSync("../src", dlsm.path("folder/link"));
    linkSync(dlsm.path("src"), dlsm.path("folder/hard"));
    const pairs = [
      ["src", "src"],
      ["src", `${dlsm.folder}/folder/..//src`],
      ["src", "folder/link"],
      ["folder/link", "src"],
      ["src", "folder/hard"],
      ["folder/hard", "folder/link"],
    ] as const;
    await refuseAll(
      dlsm,
      pairs.flatMap((pair) =>
        [[], ["--force"], ["--force", "--handoff", "manual"]].map((flags): Refusal => ({
          args: ["migrate", ...pair, ...flags],
          kind: "precondition",
          says: ["source and destination are the same disk", `${hostname()}:`],
          hint: ["another destination"],
        }))
      ).filter((_, index) => index % 2 === 0),
    );
  }));

withTgt(
  "--force overwrites a destination that is not empty, and zeroes what is a hole of the source",
  () =>
    withDlsm(async (dlsm) => {
      makeDisk(dlsm.path("src"), 4, [1]);
      makeDisk(dlsm.path("dst"), 4, [0, 1, 2, 3]);
      await dlsm.ok("migrate", "src", "dst", "--force", "--verify");
      assert.is(Buffer.compare(readFileSync(dlsm.path("src")), readFileSync(dlsm.path("dst"))), 0);
      await dlsm.nothingLeft();
    }),
);

withTgt(
  "a disk that another program can write, as source and as destination: who it is",
  () =>
    withDlsm(async (dlsm) => {
      makeDisk(dlsm.path("src"), 1, [0]);
      makeDisk(dlsm.path("other"), 1, [0]);
      const writer = await startWriter(dlsm.path("src"));
      try {
        const user = `process ${writer.pid} (${writer.command})`;
        const says = [`the source ${at(dlsm.path("src"))} can still be written by ${user}`];
        await refuseAll(dlsm, [
          { args: ["migrate", "src", "dst"], kind: "precondition", says, hint: ["--handoff manual"] },
          {
            args: ["migrate", "src", "dst", "--handoff", "now"],
            kind: "precondition",
            says,
            hint: ["stop that"],
          },
          {
            args: ["migrate", "other", "src", "--force"],
            kind: "precondition",
            says: [`the destination ${at(dlsm.path("src"))} is in use: ${user}`],
            hint: ["stop who uses it"],
          },
        ]);
        // Attached, but not handed over while it is so.
        const { id } = await dlsm.migrateDetached("src", "dst", ["--handoff", "manual"]);
        const refused = await dlsm.run("activate", id);
        assert.is(refused.exitCode, 3);
        assert.ok(refused.stderr.includes(says[0]!), refused.stderr);
        assert.match(refused.stderr, `then dlsm activate ${id}; --force hands over all the same`);
        assert.is((await dlsm.status(id))!.phase, "attached");
      } finally {
        await writer.stop();
      }
    }),
);

withLoop(
  "block devices: mounted, carrying a file system, in use, too small, or part of the other disk",
  () =>
    withDlsm(async (dlsm) => {
      const path = (name: string) => dlsm.path(name);
      for (const name of ["disk", "small"]) makeDisk(path(name), name === "disk" ? 16 : 1, []);
      makeDisk(path("src"), 16, [0]);
      mkdirSync(path("mnt"));
      const loop = await attachLoop(path("disk"));
      const small = await attachLoop(path("small"));
      await execa(findProgram("mkfs.ext4")!, ["-q", loop.path]);
      const refusal = (args: string[], says: string[], hint: string[]): Refusal => ({
        args: ["migrate", ...args],
        kind: "precondition",
        says,
        hint,
      });
      try {
        await refuseAll(dlsm, [
          refusal(["src", loop.path], [`the destination ${at(loop.path)} is not empty`, "ext4"], ["--force"]),
          refusal(["src", small.path, "--force"], [at(small.path), "too small"], ["enlarge"]),
          refusal([loop.path, loop.path, "--force"], ["are the same disk"], ["another destination"]),
          refusal([loop.path, path("disk"), "--force"], ["share their storage"], ["another destination"]),
          refusal(
            [path("disk"), loop.path, "--force", "--handoff", "manual"],
            ["share their storage"],
            ["another destination"],
          ),
          refusal(["src", path("disk"), "--force"], [`the device ${loop.path} on top of it`], [
            "stop who uses",
          ]),
          refusal([path("disk"), "dst"], [`the device ${loop.path} on top of it`], ["--handoff manual"]),
        ]);
        // Else the kernel writes to it in the background, some seconds later.
        await execa("mount", ["-o", "noinit_itable", loop.path, path("mnt")]);
        await execa("sync", ["--file-system", path("mnt")]);
        try {
          const mounted = `a file system mounted on ${path("mnt")}`;
          await refuseAll(dlsm, [
            refusal([loop.path, "dst"], [`the source ${at(loop.path)}`, mounted], ["stop that"]),
            refusal([path("disk"), "dst"], [at(path("disk")), mounted], ["stop that"]),
            refusal(["src", loop.path, "--force"], [at(loop.path), "in use", mounted], ["stop who uses"]),
          ]);
        } finally {
          await execa("umount", [path("mnt")]);
        }
      } finally {
        await loop.detach();
        await small.detach();
      }
    }),
);

withTgt("a disk that another migration has, as source and as destination", () =>
  withDlsm(async (dlsm) => {
    for (const name of ["src", "other"]) makeDisk(dlsm.path(name), 1, [0]);
    linkSync(dlsm.path("src"), dlsm.path("hard"));
    const { id } = await dlsm.migrateDetached("src", "dst", ["--handoff", "manual"]);
    const locked = (args: string[], says: string[]): Refusal => ({
      args,
      kind: "locked",
      says: [...says, id],
      hint: [`dlsm status ${id}`, `dlsm abort ${id}`],
    });
    await refuseAll(dlsm, [
      locked(["migrate", "hard", "dst2", "--handoff", "manual"], [at(dlsm.path("hard")), "already"]),
      locked(["export", "src", "--allow", "127.0.0.1"], [at(dlsm.path("src")), "already being migrated"]),
      locked(["migrate", "other", "dst", "--force"], [at(dlsm.path("dst")), "already the destination"]),
    ]);
    await dlsm.ok("abort", id);
    await dlsm.nothingLeft();
  }));

withTgt("a portal that cannot be had: taken, or not of this host", () =>
  withDlsm(async (dlsm) => {
    makeDisk(dlsm.path("src"), 1, [0]);
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const refusal = (portal: string, says: string[], hint: string): Refusal => ({
      args: ["export", "src", "--allow", "127.0.0.1", "--portal", portal],
      kind: "precondition",
      says: [`cannot export ${at(dlsm.path("src"))}`, ...says],
      hint: ["--portal", hint],
    });
    try {
      await refuseAll(dlsm, [
        refusal(`127.0.0.1:${port}`, [`port ${port} of 127.0.0.1 is in use`], "another port"),
        refusal("192.0.2.1", [`192.0.2.1 is not an address of ${hostname()}`], "this host's addresses"),
      ]);
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  }));

withTgt(
  "a ticket that is missing, empty, cut short or changed; one that cannot be written",
  () =>
    withDlsm(async (dlsm) => {
      makeDisk(dlsm.path("src"), 1, [0]);
      mkdirSync(dlsm.path("folder"));
      writeFileSync(dlsm.path("empty"), "");
      const { stdout: id } = await dlsm.ok("export", "src", "--allow", "127.0.0.1", "--output", "ticket");
      const ticket = readFileSync(dlsm.path("ticket"), "utf8");
      writeFileSync(dlsm.path("short"), ticket.slice(0, -9));
      writeFileSync(
        dlsm.path("changed"),
        ticket.replace(/.(..)\n$/, (all) => (all[0] === "A" ? "B" : "A") + all.slice(1)),
      );
      const bad = (name: string, says: string, hint = "as it was"): Refusal => ({
        args: ["attach", name, "dst"],
        kind: "precondition",
        says: [name, says],
        hint: [hint],
      });
      await refuseAll(dlsm, [
        bad("nowhere", "no such file", "--output"),
        bad("folder", "is a folder", "--output"),
        bad("empty", "it is empty"),
        bad("src", "it is too long"),
        bad("short", "missing or changed"),
        bad("changed", "missing or changed"),
      ]);
      await dlsm.ok("release", id.trim());
      const unwritable = (output: string, says: string): Refusal => ({
        args: ["export", "src", "--allow", "127.0.0.1", "-o", output],
        kind: "precondition",
        says: [output, says],
        hint: ["nothing is exported"],
      });
      await refuseAll(dlsm, [unwritable("ticket", "exists"), unwritable("no/ticket", "no such")]);
      await dlsm.nothingLeft();
    }),
);

// Deno itself does not start there, only what it compiled would.
const underNode = "Deno" in globalThis ? undefined : withTgt;
underNode?.(
  "a current directory that is gone",
  () =>
    withDlsm(async (dlsm) => {
      const { program, args } = selfCommand(["status"]);
      const script = 'mkdir gone && cd gone && rmdir ../gone && exec "$0" "$@"';
      const ran = await execa("sh", ["-c", script, program, ...args], {
        cwd: dlsm.folder,
        env: dlsm.environment,
        reject: false,
      });
      assert.is(ran.exitCode, 3, ran.stderr);
      assert.match(ran.stderr, /the current directory is gone, .*\n {2}cd to another one/);
      assert.not.match(ran.stderr, /did not expect/);
    }),
);

withTgt(
  "a hand-off command that fails: nothing is handed over, and it can be tried again",
  () =>
    withDlsm(async (dlsm) => {
      makeDisk(dlsm.path("src"), 1, [0]);
      const before = readFileSync(dlsm.path("src"));
      const command = `test -e ${dlsm.path("ready")}`;
      const { exitCode, stdout, stderr } = await dlsm.run(
        "migrate",
        "src",
        "dst",
        "--handoff-command",
        command,
        "--json",
      );
      assert.is(exitCode, 1, stderr);
      const { error } = JSON.parse(stdout.trim().split("\n").at(-1)!);
      assert.is(error.kind, "failed");
      assert.match(error.message, "the hand-off command ended with exit code 1: nothing was handed over");
      const [, id] = /dlsm resume (\w+)/.exec(error.hint)!;
      assert.match(error.hint, `dlsm abort ${id}`);
      const status = (await dlsm.status(id!))!;
      assert.is(status.phase, "attached");
      assert.is(status.disks[0]!.residentBytes, 0);
      writeFileSync(dlsm.path("ready"), "");
      await dlsm.ok("resume", id!);
      assert.is(Buffer.compare(before, readFileSync(dlsm.path("dst"))), 0);
      await dlsm.nothingLeft();
    }),
);

asNobody(
  "a user who may not do it: read, write, or use somebody else's state",
  () =>
    withDlsm(async (dlsm) => {
      const path = (name: string) => dlsm.path(name);
      const nobody = 65534;
      const prefix = ["setpriv", "--reuid", `${nobody}`, "--regid", `${nobody}`, "--clear-groups"];
      const home = tempFolder("home");
      const cache = { HOME: home, DENO_DIR: home };
      chownSync(home, nobody, nobody);
      chmodSync(dlsm.folder, 0o755);
      for (const name of ["state", "run"]) {
        mkdirSync(path(name), { mode: 0o700 });
        chownSync(path(name), nobody, nobody);
      }
      mkdirSync(path("closed"), { mode: 0o700 });
      mkdirSync(path("foreign"), { mode: 0o755 });
      for (const name of ["src", "secret", "closed/src"]) makeDisk(path(name), 1, [0]);
      chmodSync(path("src"), 0o644);
      chmodSync(path("secret"), 0o600);
      writeFileSync(path("foreign/empty"), "", { mode: 0o644 });
      const refusal = (args: string[], says: string[], more: Record<string, string> = {}): Refusal => ({
        args,
        kind: "precondition",
        says,
        hint: ["run dlsm as"],
        prefix,
        environment: { ...cache, ...more },
      });
      await refuseAll(dlsm, [
        refusal(["migrate", "secret", "run/dst"], [`no permission to read the source ${at(path("secret"))}`]),
        refusal(["migrate", "closed/src", "run/dst"], [`reach the source ${at(path("closed/src"))}`]),
        refusal(["migrate", "src", "foreign/dst"], [`make the destination in ${at(path("foreign"))}`]),
        refusal(["migrate", "src", "foreign/empty"], [`write the destination ${at(path("foreign/empty"))}`]),
        refusal(["migrate", "src", "closed/dst"], ["reach the destination", at(path("closed/dst"))]),
        refusal(["status"], [`the state folder ${path("foreign")} belongs to another user (uid 0)`], {
          DLSM_STATE_DIR: path("foreign"),
        }),
      ]);
    }),
);

asRoot("tgt is not installed", () =>
  withDlsm(async (dlsm) => {
    makeDisk(dlsm.path("src"), 1, [0]);
    writeFileSync(dlsm.path("nothing"), "");
    // In a mount namespace of its own: the library looks in the sbin folders too, whatever the PATH.
    const hide = 'for tool in $TOOLS; do mount --bind "$NOTHING" "$tool" || exit 99; done; exec "$@"';
    const tools = ["tgtd", "tgtadm"].flatMap((name) => findProgram(name) ?? []);
    const refusal = (args: string[]): Refusal => ({
      args,
      kind: "precondition",
      says: [`cannot export ${at(dlsm.path("src"))}`, `tgt is not installed on ${hostname()}`],
      hint: ["apt install tgt"],
      prefix: ["unshare", "-m", "sh", "-c", hide, "sh"],
      environment: { TOOLS: tools.join(" "), NOTHING: dlsm.path("nothing") },
    });
    await refuseAll(dlsm, [
      refusal(["migrate", "src", "dst"]),
      refusal(["export", "src", "--allow", "127.0.0.1"]),
    ]);
  }));

test.run();
