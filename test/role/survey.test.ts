/** What a host says of itself and what was left behind on it, with real strays. */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { once } from "node:events";
import { join } from "node:path";
import { execa, type Subprocess } from "execa";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { engineFiles, type SourceExport } from "../../src/engine/mod.ts";
import { acquire } from "../../src/lib/lock.ts";
import { selfCommand } from "../../src/lib/self.ts";
import { type Finding, type Host, localHost, type RoleFolders, roleFolders } from "../../src/role/mod.ts";
import { survey } from "../../src/role/survey/survey.ts";
import { makeDisk } from "../helpers/disk.ts";
import { Dlsm, kill } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { until } from "../helpers/processes.ts";
import { NbdClient } from "../integration/nbd-client.ts";

const test = suite("survey");
const withTgt = needing(test, ["tgtd"]);
const asRoot = needing(test, ["unshare", "mount"], { root: true });
const withSsh = needing(test, ["ssh"]);
const id = "abcd2345";

interface Scene {
  readonly dlsm: Dlsm;
  readonly folders: RoleFolders;
  readonly host: Host;
}

/** A host of a test's own. Nothing runs afterwards. */
async function scene(body: (scene: Scene) => Promise<void>): Promise<void> {
  const dlsm = new Dlsm();
  const folders = { state: dlsm.path("state"), run: dlsm.path("run") };
  for (const folder of Object.values(folders)) mkdirSync(folder, { mode: 0o700 });
  const host = await localHost(folders);
  try {
    await body({ dlsm, folders, host });
  } finally {
    await host.close();
    await dlsm.close();
  }
}

/** A source and its attached volume, set up as a migration does. */
async function attached({ dlsm, host }: Scene): Promise<SourceExport> {
  const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
  makeDisk(source, 4, [0, 2]);
  const place = (path: string) => ({ host: "here", path, reach: null, hostId: null });
  const portal = { address: "127.0.0.1", port: 0 };
  const network = { portal, allow: "127.0.0.1", tunnel: null };
  await host.ask("destination.plan", {
    id,
    diskCount: 1,
    destinationReach: null,
    network,
    path: destination,
    force: false,
    sizeBytes: 4 * 1024 * 1024,
    blockBytes: 4096,
    activation: "explicit",
    bytesPerSecond: 1024,
    sourceTimeoutMs: null,
    source: place(source),
    options: {
      handoff: "manual",
      verify: false,
      holdCutover: true,
      byTicket: false,
      keepSource: false,
    },
    failback: null,
  });
  const exported = await host.ask("source.export", {
    id,
    path: source,
    ...network,
    destination: place(destination),
  });
  await host.ask("destination.attach", { id, export: exported });
  return exported;
}

const strays = (findings: readonly Finding[]) => findings.filter(({ level }) => level === "stray");

async function straysOf(host: Host): Promise<Finding[]> {
  return strays(await host.ask("host.survey", {}));
}

/** The only stray. */
async function oneStray(host: Host): Promise<Finding> {
  const found = await straysOf(host);
  assert.is(found.length, 1, JSON.stringify(found));
  return found[0]!;
}

/** `host.clean` takes the only stray away, and then there is none. */
async function cleanOne({ host }: Scene, outcome: RegExp): Promise<void> {
  const cleaned = await host.ask("host.clean", {});
  assert.is(cleaned.length, 1, JSON.stringify(cleaned));
  assert.ok(cleaned[0]!.isGone, cleaned[0]!.outcome);
  assert.match(cleaned[0]!.outcome, outcome);
  assert.equal(await straysOf(host), []);
  assert.equal(await host.ask("host.clean", {}), []);
}

async function refusesToClean({ host }: Scene): Promise<void> {
  assert.equal(await host.ask("host.clean", {}), []);
}

function age(path: string): void {
  const then = Date.now() / 1000 - 3600;
  utimesSync(path, then, then);
}

test("a host in good order: every check says what it found, and nothing is left over", async () => {
  await scene(async ({ host }) => {
    const findings = await host.ask("host.survey", {});
    const checks = new Set(findings.map(({ check }) => check));
    for (
      const check of [
        ...["dlsm", "user", "state-folder", "run-folder", "tgt", "ssh", "ip", "blkid", "qemu", "libnbd"],
        ...["read-only-view", "nbd", "device-mapper", "loop"],
      ]
    ) assert.ok(checks.has(check), check);
    assert.equal(strays(findings), []);
    for (const { level, message, remedy } of findings) {
      assert.not.match(message, /undefined|null|\n/);
      assert.ok(level === "note" || (remedy === null) === (level === "ok"), message);
    }
  });
});

test("a state folder that is open to others, and one that cannot be made, are missing", async () => {
  await scene(async ({ dlsm }) => {
    mkdirSync(dlsm.path("open"));
    await execa("chmod", ["777", dlsm.path("open")]);
    writeFileSync(dlsm.path("file"), "");
    for (
      const [state, message] of [["open", /open to other users/], ["file/state", /cannot be made/]] as const
    ) {
      const host = await localHost({ state: dlsm.path(state), run: dlsm.path("run") });
      const found = (await host.ask("host.survey", {})).find(({ check }) => check === "state-folder")!;
      assert.is(found.level, "missing");
      assert.match(found.message, message);
      assert.match(found.remedy!, "DLSM_STATE_DIR");
      await host.close();
    }
  });
});

test("copies of dlsm that --deploy left are told, but for one that runs", async () => {
  await scene(async ({ dlsm, host }) => {
    const folder = dlsm.path("cache/dlsm/bin");
    mkdirSync(folder, { recursive: true });
    const [idle, used] = ["0123456789abcdef", "fedcba9876543210"].map((hash) => join(folder, `dlsm-${hash}`));
    copyFileSync("/bin/sleep", idle!);
    copyFileSync("/bin/sleep", used!);
    const running = execa(used!, ["300"], { reject: false });
    const { XDG_CACHE_HOME: before } = process.env;
    process.env.XDG_CACHE_HOME = dlsm.path("cache");
    try {
      const [found] = (await host.ask("host.survey", {})).filter(({ check }) => check === "deployed");
      assert.is(found?.level, "note");
      assert.ok(found!.remedy!.endsWith(`rm ${idle}`), found!.remedy!);
    } finally {
      if (before === undefined) delete process.env.XDG_CACHE_HOME;
      else process.env.XDG_CACHE_HOME = before;
      running.kill("SIGKILL");
      await running;
    }
  });
});

withTgt("a migration in use is no stray: cleaning beside it changes nothing", async () => {
  await scene(async (all) => {
    await attached(all);
    const before = all.dlsm.processes().map(({ pid }) => pid);
    const findings = await all.host.ask("host.survey", {});
    assert.equal(strays(findings), []);
    assert.is(findings.find(({ check }) => check === "export")?.level, "ok");
    assert.is(findings.find(({ check }) => check === "volume")?.level, "ok");
    assert.match(findings.find(({ check }) => check === "ports")!.message, /listens on 127\.0\.0\.1:\d+/);
    await refusesToClean(all);
    assert.equal(all.dlsm.processes().map(({ pid }) => pid), before);
    await all.host.ask("destination.abort", { id, force: false });
    await all.host.ask("source.release", { id, force: false });
    await all.dlsm.nothingLeft();
  });
});

withTgt("a tgtd without a record is named and ended, but not while somebody is logged in", async () => {
  await scene(async (all) => {
    const { host, folders, dlsm } = all;
    await attached(all);
    const { state } = roleFolders(folders, "source", id);
    rmSync(state, { recursive: true });
    const used = await oneStray(host);
    assert.is(used.check, "tgtd");
    assert.not.ok(used.cleanable);
    assert.match(used.message, /somebody is logged in/);
    await refusesToClean(all);

    await host.ask("destination.abort", { id, force: false });
    const unused = await oneStray(host);
    assert.ok(unused.cleanable, unused.message);
    assert.match(unused.message, new RegExp(`no journal knows of an export ${id}`));
    await cleanOne(all, /ended tgtd/);
    await dlsm.nothingLeft();
    assert.ok(existsSync(dlsm.path("src.img")), "the disk stays");
  });
});

withTgt("a tgtd of another state folder is not ended", async () => {
  await scene(async (all) => {
    await attached(all);
    await all.host.ask("destination.abort", { id, force: false });
    const other = await localHost({ state: all.dlsm.path("other"), run: all.folders.run });
    mkdirSync(all.dlsm.path("other"), { mode: 0o700 });
    const found = await oneStray(other);
    assert.not.ok(found.cleanable);
    assert.match(found.message, `it belongs to ${roleFolders(all.folders, "source", id).state}`);
    await refusesToClean({ ...all, host: other });
    await other.close();
    assert.is((await all.host.ask("source.list", {}))[0]!.tgtdPid === null, false);
  });
});

withTgt("an engine without its state folder is stopped, unless it is used or has data", async () => {
  await scene(async (all) => {
    const { host, folders, dlsm } = all;
    await attached(all);
    const { state, run } = roleFolders(folders, "destination", id);
    const client = await NbdClient.connect(join(run, engineFiles.nbdSocket));
    const aside = dlsm.path("aside");
    renameSync(state, aside);
    assert.match((await oneStray(host)).message, /1 client\(s\) use it/);
    await refusesToClean(all);
    client.close();

    renameSync(aside, state);
    await host.ask("destination.activate", { id });
    renameSync(state, aside);
    const active = await oneStray(host);
    assert.match(active.message, /only it knows which blocks/);
    assert.match(active.remedy!, /nbdcopy/);
    await refusesToClean(all);
    assert.ok(existsSync(join(run, engineFiles.liveMap)));
    renameSync(aside, state);
    assert.equal(strays(await host.ask("host.survey", {})).map(({ check }) => check), ["volume"]);
    await host.ask("destination.abort", { id, force: true });
    await host.ask("source.release", { id, force: false });

    await attached(all);
    renameSync(state, dlsm.path("lost"));
    const unused = await oneStray(host);
    assert.is(unused.check, "engine");
    assert.ok(unused.cleanable, unused.message);
    await cleanOne(all, /stopped the engine/);
    assert.ok(existsSync(dlsm.path("dst.img")), "the disk stays");
    assert.not.ok(existsSync(run));
    await host.ask("source.release", { id, force: false });
    await dlsm.nothingLeft();
  });
});

withTgt(
  "a killed engine's run folder without a record goes; one that is locked, or not its own, stays",
  async () => {
    await scene(async (all) => {
      const { host, folders, dlsm } = all;
      await attached(all);
      const { state, run } = roleFolders(folders, "destination", id);
      const { engine } = (await host.ask("destination.list", { id }))[0]!;
      kill(engine!.pid, "SIGKILL");
      await dlsm.until(id, (status) => status?.disks[0]?.enginePid === null, "the engine is gone");
      const stopped = await oneStray(host);
      assert.is(stopped.check, "volume");
      assert.match(stopped.remedy!, `dlsm resume ${id}`);
      await refusesToClean(all);

      rmSync(state, { recursive: true });
      const lock = acquire(run)!;
      assert.match((await oneStray(host)).message, /holds its lock/);
      await refusesToClean(all);
      lock.release();
      const owner = join(run, "state-folder");
      const said = readFileSync(owner);
      for (const other of ["/elsewhere/destination/abcd2345", undefined]) {
        if (other === undefined) rmSync(owner);
        else writeFileSync(owner, other);
        assert.match((await oneStray(host)).message, /belongs to/);
        await refusesToClean(all);
      }
      writeFileSync(owner, said);
      assert.match((await oneStray(host)).message, /live\.map/);
      await cleanOne(all, /removed .*dst/);
      await host.ask("source.release", { id, force: true });
      await dlsm.nothingLeft();
    });
  },
);

withTgt("what a driver puts right meanwhile is no stray; what it does not, is", async () => {
  await scene(async (all) => {
    await attached(all);
    const [entry] = await all.host.ask("destination.list", { id });
    const seen = async (driverPids: (number | null)[]) => {
      let asked = 0;
      const entries = () => {
        const driverPid = driverPids[Math.min(asked++, driverPids.length - 1)]!;
        return Promise.resolve({ sources: [], destinations: [{ ...entry!, isActivated: true, driverPid }] });
      };
      const findings = await survey(all.folders, await all.host.facts(), entries);
      return strays(findings).map(({ message }) => message);
    };
    assert.equal(await seen([null, null, 7]), []);
    assert.match((await seen([null]))[0]!, "nobody drives");
    await all.host.ask("destination.abort", { id, force: false });
    await all.host.ask("source.release", { id, force: false });
  });
});

test("half-made files go, those of somebody at work and unreadable journals stay", async () => {
  await scene(async (all) => {
    const { state } = roleFolders(all.folders, "destination", id);
    mkdirSync(state, { recursive: true });
    writeFileSync(join(state, "journal"), "no journal");
    const broken = await oneStray(all.host);
    assert.is(broken.check, "journal");
    assert.match(broken.message, /not a dlsm journal/);
    await refusesToClean(all);

    const temporary = join(state, ".journal.0123456789ab.tmp");
    writeFileSync(temporary, "");
    await refusesToClean(all);
    age(temporary);
    const unnamed = join(all.folders.state, "source", ".abcd2345");
    mkdirSync(unnamed, { recursive: true });
    writeFileSync(join(unnamed, "journal"), "");
    assert.equal((await straysOf(all.host)).map(({ check }) => check), ["journal", "half-made", "half-made"]);
    assert.is((await all.host.ask("host.clean", {})).length, 2);
    assert.not.ok(existsSync(temporary) || existsSync(unnamed));
    assert.ok(existsSync(join(state, "journal")));
    rmSync(state, { recursive: true });
  });
});

withTgt("records that were cut short are told when nobody works on them, and kept", async () => {
  await scene(async (all) => {
    const { host, folders } = all;
    await attached(all);
    await host.ask("destination.abort", { id, force: false });
    const { state } = roleFolders(folders, "source", id);
    const { sourceJournal } = await import("../../src/role/source-journal.ts");
    const journal = sourceJournal(state);
    for (
      const [cutShort, words] of [["releasing", /release .* cut short/], [
        "exporting",
        /set-up .* cut short/,
      ]] as const
    ) {
      journal.write({ ...journal.read()!, state: cutShort });
      assert.equal(await straysOf(host), [], "it may be under way");
      age(journal.path);
      const found = await oneStray(host);
      assert.match(found.message, words);
      assert.match(found.remedy!, `dlsm release ${id}`);
      await refusesToClean(all);
    }
    await host.ask("source.release", { id, force: false });
  });
});

test("a driver without its migration, and only one of these folders, is ended", async () => {
  await scene(async (all) => {
    const mine = startIdle(["drive", id], {
      DLSM_STATE_DIR: all.folders.state,
      DLSM_RUN_DIR: all.folders.run,
    });
    const other = startIdle(["drive", id], { DLSM_STATE_DIR: "/elsewhere", DLSM_RUN_DIR: all.folders.run });
    try {
      const found = await oneStray(all.host);
      assert.is(found.subject, `process ${mine.pid}`);
      assert.match(found.message, `there is no migration ${id}`);
      await cleanOne(all, /ended the driver/);
      await mine;
      assert.is(other.nodeChildProcess.exitCode, null, "not this one");
    } finally {
      for (const process of [mine, other]) process.kill("SIGKILL");
      await Promise.all([mine, other]);
    }
  });
});

asRoot("a process in a container that has the same paths is not this host's", async () => {
  await scene(async (all) => {
    const { program, args, env } = idle(["drive", id], {
      DLSM_STATE_DIR: all.folders.state,
      DLSM_RUN_DIR: all.folders.run,
    });
    const script = 'mount -t tmpfs tmpfs "$DLSM_RUN_DIR" && echo there && exec "$@"';
    const contained = execa("unshare", ["-m", "sh", "-c", script, "sh", program, ...args], {
      env,
      reject: false,
    });
    try {
      await once(contained.stdout, "data");
      await until(() => readFileSync(`/proc/${contained.pid}/cmdline`, "utf8").includes("drive"), "it runs");
      assert.equal(await straysOf(all.host), []);
      await refusesToClean(all);
    } finally {
      contained.kill("SIGKILL");
      await contained;
    }
  });
});

withSsh("an ssh that carried bytes for an engine that is gone is ended", async () => {
  await scene(async (all) => {
    const run = join(all.folders.run, id, "dst");
    // A server that says nothing, so that ssh waits for its words.
    const { createServer } = await import("node:net");
    const silent = createServer(() => {}).listen(0, "127.0.0.1");
    await new Promise((resolve) => silent.once("listening", resolve));
    const { port } = silent.address() as { port: number };
    const ssh = execa("ssh", ["-F", "none", "-p", String(port), "-W", "127.0.0.1:9", "--", "127.0.0.1"], {
      env: { DLSM_ENGINE_RUN_DIR: run },
      reject: false,
    });
    try {
      const found = await oneStray(all.host);
      assert.is(found.check, "tunnel");
      assert.is(found.subject, `process ${ssh.pid}`);
      await cleanOne(all, /ended ssh/);
      await ssh;
    } finally {
      ssh.kill("SIGKILL");
      silent.close();
    }
  });
});

test("while another dlsm is busy, what is left behind is not told, and nothing else waits", async () => {
  await scene(async (all) => {
    const lock = acquire(all.folders.run)!;
    const findings = await all.host.ask("host.survey", {});
    assert.is(findings.find(({ check }) => check === "left-over")?.level, "note");
    lock.release();
    assert.is((await all.host.ask("host.survey", {})).some(({ check }) => check === "left-over"), false);
  });
});

/** A process that looks like this command of dlsm and does nothing. */
function startIdle(given: readonly string[], environment: Record<string, string>): Subprocess {
  const { program, args, env } = idle(given, environment);
  return execa(program, args, { env, reject: false });
}

function idle(given: readonly string[], env: Record<string, string>) {
  const { program } = selfCommand([]);
  const script = "setInterval(() => {}, 1000)";
  const isDeno = "Deno" in globalThis;
  return { program, args: isDeno ? ["eval", script, "--", ...given] : ["-e", script, "--", ...given], env };
}

test.run();
