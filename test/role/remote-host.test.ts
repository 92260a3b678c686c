/** Asking another host over a real ssh: what crosses, and what a lost connection does. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { PreconditionError, UnreachableError } from "../../src/lib/errors.ts";
import { version } from "../../src/lib/version.ts";
import { isUnreachable, localHost, remoteHost, type RemoteHostOptions } from "../../src/role/mod.ts";
import { RpcTimeoutError } from "../../src/rpc/mod.ts";
import { kill } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { until } from "../helpers/processes.ts";
import { rejection } from "../helpers/rejection.ts";
import { tempFolder } from "../helpers/temp.ts";
import { eventually, FarSide, programsOfFarSide, thisTree, writeProgram } from "../ssh/far-side.ts";

const test = suite("remote host");
const withSsh = needing(test, programsOfFarSide);

let far: FarSide;
test.before(async () => {
  far = await FarSide.start();
});
test.before.each(() => far.know());
test.after(async () => {
  await until(() => farProcesses().length === 0 && sshProcesses().length === 0, "no process is left");
  await far.close();
});

const open = (options: RemoteHostOptions = {}) => remoteHost("node", { isInteractive: false, ...options });
/** Dead after two seconds without a word: on a busy machine the living are silent for a while, too. */
const nervous = { heartbeatMs: 100, silentBeats: 20 };

/** Runs it with a host, and closes that. */
async function withHost(
  options: RemoteHostOptions,
  body: (host: ReturnType<typeof open>) => Promise<void>,
): Promise<void> {
  const host = open(options);
  try {
    await body(host);
  } finally {
    await host.close();
  }
}

/** Pids by a part of the command line, zombies left out. */
function processes(isIt: (command: string, pid: string) => boolean): number[] {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).flatMap((pid) => {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
      const isZombie = /\) Z/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
      return !isZombie && isIt(command, pid) ? [Number(pid)] : [];
    } catch {
      return [];
    }
  });
}

/** Those that answer there: `dlsm role`, or its stand-in, with the folders of this test. */
const farProcesses = () =>
  processes((command, pid) =>
    / role $/.test(command) && readFileSync(`/proc/${pid}/environ`, "utf8").includes(far.path("state"))
  );
const sshProcesses = () => processes((command) => command.includes(`ssh -F ${far.path("client/config")}`));

withSsh("it says who it is, and is asked once", async () => {
  await withHost({}, async (host) => {
    assert.is(host.reach, "node");
    const facts = await host.facts();
    const here = await (await localHost({ state: "/s", run: "/r" })).facts();
    assert.is(facts, await host.facts());
    assert.equal({ ...facts, ssh: null, stateFolder: "", runFolder: "" }, {
      ...here,
      stateFolder: "",
      runFolder: "",
    });
    assert.equal(facts.ssh, { clientAddress: "127.0.0.1", serverAddress: "127.0.0.1" });
    assert.is(facts.stateFolder, far.path("state"));
    assert.is(facts.version, version);
  });
});

withSsh("errors of the role there are those that it would give here", async () => {
  await withHost({}, async (host) => {
    const error = await rejection(host.ask("source.inspect", { path: "/no/such/disk" }), PreconditionError);
    assert.match(error.message, /does not exist/);
    assert.not.ok(isUnreachable(error));
    const silly = await rejection(host.ask("source.inspect", { path: "" }), PreconditionError);
    assert.match(silly.message, /makes no sense/);
  });
});

withSsh("no connection before the first question, one for all, none after close", async () => {
  const host = open();
  assert.is(sshProcesses().length, 0);
  await Promise.all([host.facts(), host.ask("source.list", {}), host.ask("destination.list", {})]);
  assert.is(sshProcesses().length, 1);
  await host.close();
  assert.is(sshProcesses().length, 0);
  await until(() => farProcesses().length === 0, "the far side ends");
  await rejection(host.ask("source.list", {}), UnreachableError);
});

withSsh("when ssh is killed, what was asked rejects, and the next question connects again", async () => {
  await withHost({}, async (host) => {
    await host.facts();
    const [first] = sshProcesses();
    const asked = host.ask("host.reachSsh", { destination: "nobody.invalid" });
    for (const pid of farProcesses()) kill(pid, "SIGSTOP");
    kill(first!, "SIGKILL");
    const error = await rejection(asked, UnreachableError);
    assert.is(error.exitCode, 1, "it was reached before");
    assert.match(error.message, /connection to node was lost: ssh was ended by SIGKILL/);
    assert.ok(isUnreachable(error));
    for (const pid of farProcesses()) kill(pid, "SIGCONT");
    assert.equal(await host.ask("source.list", {}), []);
    assert.is.not(sshProcesses()[0], first);
  });
});

withSsh("when dlsm there is killed, that is what is said", async () => {
  await withHost({}, async (host) => {
    await host.facts();
    const asked = host.ask("host.reachSsh", { destination: "nobody.invalid" });
    for (const pid of farProcesses()) kill(pid, "SIGKILL");
    assert.match((await rejection(asked, UnreachableError)).message, /dlsm or sshd on node was killed/);
    assert.equal(await host.ask("source.list", {}), []);
  });
});

withSsh("a far side that falls silent is given up, and its ssh does not stay", async () => {
  writeProgram(far.path("bin/dlsm"), thisTree().replace("src/main.ts", "test/role/fixtures-role.ts"));
  await withHost({ link: nervous }, async (host) => {
    await host.facts();
    const stopped = farProcesses();
    for (const pid of stopped) kill(pid, "SIGSTOP");
    const error = await rejection(host.ask("source.list", {}), UnreachableError);
    assert.match(error.message, /lost: the other side went silent/);
    await until(() => sshProcesses().length === 0, "ssh ends");
    assert.equal(await host.ask("source.list", {}), []);
    for (const pid of stopped) kill(pid, "SIGKILL");
  });
  writeProgram(far.path("bin/dlsm"), thisTree());
});

withSsh("a far side that falls silent is given up while nobody asks too", async () => {
  writeProgram(far.path("bin/dlsm"), thisTree().replace("src/main.ts", "test/role/fixtures-role.ts"));
  await withHost({ link: nervous }, async (host) => {
    await host.facts();
    const stopped = farProcesses();
    for (const pid of stopped) kill(pid, "SIGSTOP");
    await until(() => sshProcesses().length === 0, "ssh ends");
    for (const pid of stopped) kill(pid, "SIGKILL");
  });
  writeProgram(far.path("bin/dlsm"), thisTree());
});

withSsh("a connection that was lost while nobody asked is made again", async () => {
  await withHost({}, async (host) => {
    const before = await host.facts();
    kill(sshProcesses()[0]!, "SIGKILL");
    await until(() => sshProcesses().length === 0, "ssh ends");
    await until(() => farProcesses().length === 0, "the far side ends");
    // That it is lost may not have been seen yet.
    const lost = await host.ask("source.list", {}).then(() => undefined, (error: unknown) => error);
    assert.ok(lost === undefined || isUnreachable(lost), String(lost));
    assert.equal(await host.ask("source.list", {}), []);
    assert.equal(await host.facts(), before);
  });
});

withSsh("a host that cannot be reached any more is an error of exit code 1", async () => {
  await withHost({}, async (host) => {
    await host.facts();
    far.know(["Port 1"]);
    kill(sshProcesses()[0]!, "SIGKILL");
    await until(() => sshProcesses().length === 0, "ssh ends");
    await eventually(async () => {
      const error = await rejection(host.ask("source.list", {}), UnreachableError);
      assert.is(error.exitCode, 1);
      return /refuses/.test(error.message);
    }, "it is tried again");
  });
});

withSsh("a deadline holds while connecting too, and the next question may be luckier", async () => {
  const gate = far.path("gate");
  far.client(`while [ ! -e ${gate} ]; do sleep 0.01; done; exec ${far.sshCommand} "$@"`);
  await withHost({}, async (host) => {
    await rejection(host.ask("source.list", {}, { timeoutMs: 50 }), RpcTimeoutError);
    const cancel = new AbortController();
    const asked = host.ask("source.list", {}, { signal: cancel.signal });
    cancel.abort(new Error("enough"));
    assert.match((await rejection(asked, Error)).message, /enough/);
    writeFileSync(gate, "");
    assert.equal(await host.ask("source.list", {}, { timeoutMs: 20_000 }), []);
  });
});

withSsh("what is said on the far side's stderr is passed on with the host's name", async () => {
  writeProgram(far.path("bin/dlsm"), `echo "a word" >&2; ${thisTree()}`);
  const lines: string[] = [];
  await withHost({ onLog: (line) => lines.push(line) }, async (host) => {
    await host.facts();
    await until(() => lines.length > 0, "the line comes");
    assert.equal(lines, ["node: a word"]);
  });
  writeProgram(far.path("bin/dlsm"), thisTree());
});

withSsh("another host can be asked whether it reaches a third one", async () => {
  const here = await localHost({ state: tempFolder("s"), run: tempFolder("r") });
  const node = remoteHost("node", { isInteractive: false });
  const { hostId } = await node.ask("host.identify", {});
  await node.close();
  const reached = await here.ask("host.reachSsh", { destination: "node" });
  assert.equal(reached, { problem: null, hostname: hostname(), hostId });
  far.know(["Port 1"]);
  assert.match((await here.ask("host.reachSsh", { destination: "node" })).problem!, /refuses/);
  assert.match((await here.ask("host.reachSsh", { destination: "-oX" })).problem!, /begins with a dash/);
  await here.close();
});

withSsh("ssh does not end with the signals of the terminal", async () => {
  await withHost({}, async (host) => {
    await host.facts();
    const [ssh] = sshProcesses();
    for (const signal of ["SIGINT", "SIGQUIT", "SIGHUP"] as const) kill(ssh!, signal);
    const ignored = BigInt(`0x${/SigIgn:\t(\w+)/.exec(readFileSync(`/proc/${ssh}/status`, "utf8"))![1]}`);
    for (const number of [1n, 2n, 3n]) assert.ok((ignored >> (number - 1n)) & 1n, `signal ${number}`);
    assert.equal(await host.ask("source.list", {}), []);
    assert.equal(sshProcesses(), [ssh!]);
  });
});

test.run();
