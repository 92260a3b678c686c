/** `dlsm doctor` as its users run it, on one machine. */
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { HostFinding } from "../../src/doctor/mod.ts";
import { makeDisk } from "../helpers/disk.ts";
import type { Dlsm, Ran } from "../helpers/dlsm.ts";
import { findProgram, isRoot, needing } from "../helpers/needs.ts";
import { killParts, pidsOf, until } from "../helpers/processes.ts";
import { runWith, withDlsm } from "./refusal.ts";

const test = suite("doctor");
const withTgt = needing(test, ["tgtd"]);
const asRoot = needing(test, ["tgtd", "unshare", "mount"], { root: true });

interface Said {
  readonly findings: HostFinding[];
  readonly strays: HostFinding[];
  readonly error: { readonly kind: string; readonly message: string; readonly hint: string } | undefined;
}

/** What `dlsm doctor --json` printed: every line is an object. */
function read({ stdout }: Ran): Said {
  const objects = stdout.trim().split("\n").map((line) => JSON.parse(line));
  const findings: HostFinding[] = objects.filter((object) => !("error" in object));
  for (const finding of findings) {
    assert.equal(Object.keys(finding), [
      ...["host", "check", "level", "subject", "message", "remedy", "cleanable", "cleaned"],
    ]);
  }
  const strays = findings.filter(({ level }) => level === "stray");
  return { findings, strays, error: objects.find((object) => "error" in object)?.error };
}

async function examine(dlsm: Dlsm, ...args: string[]): Promise<Said> {
  return read(await dlsm.ok("doctor", "--json", ...args));
}

/** As if it had been written an hour ago. */
function age(dlsm: Dlsm, role: "source" | "destination", id: string): void {
  const then = Date.now() / 1000 - 3600;
  utimesSync(join(dlsm.environment.DLSM_STATE_DIR!, role, id, "journal"), then, then);
}

withTgt("a machine in good order: a line for each check, exit code 0, and the same as objects", async () => {
  await withDlsm(async (dlsm) => {
    const { stdout, stderr } = await dlsm.ok("doctor");
    assert.is(stderr, "");
    const [name, ...lines] = stdout.trimEnd().split("\n");
    const { findings, strays } = await examine(dlsm);
    assert.equal([...new Set(findings.map(({ host }) => host))], [name]);
    assert.equal(strays, []);
    for (const line of lines) assert.match(line, /^ {2}(ok|note) +[a-z-]+: \S/);
    assert.is(lines.length, findings.length);
    await dlsm.nothingLeft();
  });
});

asRoot(
  "without tgt: exit code 3, which says what to install; the rest is examined all the same",
  async () => {
    await withDlsm(async (dlsm) => {
      writeFileSync(dlsm.path("nothing"), "");
      // In a mount namespace of its own: sbin folders are looked in too, whatever the PATH.
      const hide = 'for tool in $TOOLS; do mount --bind "$NOTHING" "$tool" || exit 99; done; exec "$@"';
      const tools = ["tgtd", "tgtadm"].flatMap((program) => findProgram(program) ?? []);
      const prefix = ["unshare", "-m", "sh", "-c", hide, "sh"];
      const ran = await runWith(dlsm, ["doctor", "--json"], prefix, {
        TOOLS: tools.join(" "),
        NOTHING: dlsm.path("nothing"),
      });
      assert.is(ran.exitCode, 3);
      const { findings, error } = read(ran);
      const missing = findings.filter(({ level }) => level === "missing");
      assert.equal(missing.map(({ check, subject }) => [check, subject]), [["tgt", "tgtd"], [
        "tgt",
        "tgtadm",
      ]]);
      assert.match(missing[0]!.message, /tgtd is not installed: this host cannot be a source/);
      assert.is(missing[0]!.remedy, "apt install tgt");
      assert.is(error!.kind, "precondition");
      assert.match(error!.message, /tgtd on .*, tgtadm on /);
      assert.ok(findings.some(({ check, level }) => check === "state-folder" && level === "ok"));
    });
  },
);

test("a state folder that cannot be used: exit code 3, and the rest is examined all the same", async () => {
  await withDlsm(async (dlsm) => {
    mkdirSync(dlsm.environment.DLSM_STATE_DIR!);
    chmodSync(dlsm.environment.DLSM_STATE_DIR!, 0o777);
    const ran = await dlsm.run("doctor");
    assert.is(ran.exitCode, 3, ran.stdout);
    assert.match(ran.stdout, /^ {2}missing +state-folder: .*open to other users.*; to do: chmod 700/m);
    assert.match(ran.stdout, /^ {2}\w+ +nbd: /m);
    assert.match(ran.stderr, /^error: something that is needed is missing/);
  });
});

withTgt("--clean beside a running migration changes nothing, and it finishes", async () => {
  await withDlsm(async (dlsm) => {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeDisk(source, 16, [0, 1, 2, 3, 9]);
    const { id } = await dlsm.migrateDetached(source, destination, ["--bwlimit", "256KiB/s"]);
    const before = dlsm.processes();
    assert.ok(before.length >= 3, JSON.stringify(before));
    for (const args of [[], ["--clean"], ["--clean"]]) {
      const { strays, findings } = await examine(dlsm, ...args);
      assert.equal(strays, []);
      assert.ok(findings.some(({ check, subject }) => check === "volume" && subject === id));
    }
    assert.equal(dlsm.processes(), before);
    await dlsm.ok("limit", id, "off");
    for (let round = 0; round < 3; round++) assert.equal((await examine(dlsm, "--clean")).strays, []);
    await dlsm.until(id, (status) => status === undefined, "done");
    assert.ok(readFileSync(destination).equals(readFileSync(source)));
    await dlsm.nothingLeft();
  });
});

withTgt(
  "what was killed in its set-up is told with what to do, kept by --clean, and ended by that",
  async () => {
    await withDlsm(async (dlsm) => {
      const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
      makeDisk(source, 4, [0]);
      const migrating = dlsm.start("migrate", source, destination, "--handoff", "manual");
      await until(() => pidsOf(dlsm, "engine").length > 0, "an engine is started");
      await killParts(dlsm, ["driver", "engine", "tgtd"]);
      await migrating;
      const [id] = readdirSync(join(dlsm.environment.DLSM_STATE_DIR!, "destination"));
      for (const role of ["source", "destination"] as const) age(dlsm, role, id!);
      const { strays } = await examine(dlsm, "--clean");
      const words = strays.map(({ check, message, remedy, cleaned }) =>
        [check, message, remedy, cleaned].join(" ")
      );
      assert.is(words.length, 2, words.join("\n"));
      assert.match(words[0]!, /^export .*its tgtd is gone dlsm resume/);
      assert.match(words[1]!, /^volume .*(cut short|does not run) dlsm resume/);
      await dlsm.ok("abort", id!);
      assert.equal((await examine(dlsm)).strays, []);
      await dlsm.nothingLeft();
    });
  },
);

withTgt("processes whose records are gone are named, and removed by --clean; the disks stay", async () => {
  await withDlsm(async (dlsm) => {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeDisk(source, 4, [0]);
    const { id } = await dlsm.migrateDetached(source, destination, ["--handoff", "manual"]);
    const [tgtd, engine, driver] = (["tgtd", "engine", "driver"] as const).map((part) => pidsOf(dlsm, part));
    rmSync(dlsm.environment.DLSM_STATE_DIR!, { recursive: true });
    const { strays } = await examine(dlsm);
    const named = strays.map(({ check, subject }) => `${check} ${subject}`);
    for (const [check, pids] of [["tgtd", tgtd], ["engine", engine]] as const) {
      assert.is(pids!.length, 1);
      assert.ok(named.includes(`${check} process ${pids![0]}`), named.join("\n"));
    }
    const text = await dlsm.ok("doctor", "--clean");
    assert.match(text.stdout, new RegExp(`^ {2}cleaned +engine: .*${id}.*; stopped the engine`, "m"));
    // The engine was logged in to it until then.
    const { stdout } = await dlsm.ok("doctor", "--clean");
    assert.match(text.stdout + stdout, new RegExp(`^ {2}cleaned +tgtd: .*${id}.*; ended tgtd`, "m"));
    assert.equal((await examine(dlsm)).strays, []);
    await until(() => driver!.every((pid) => !pidsOf(dlsm, "driver").includes(pid)), "no driver");
    await dlsm.nothingLeft();
    assert.is(readFileSync(source).length, 4 * 1024 * 1024);
    assert.is(readFileSync(destination).length, 4 * 1024 * 1024);
  });
});

if (!isRoot) {
  test("without root: told", async () => {
    await withDlsm(async (dlsm) => {
      assert.ok(
        (await examine(dlsm)).findings.some(({ check, level }) => check === "user" && level === "note"),
      );
    });
  });
}

test.run();
