/** Sessions through a real sshd to a target in this process: what the transport owes its owner. */
import { readdirSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type InitiatorOptions, Session, type TransportHandlers } from "../../src/iscsi-initiator/mod.ts";
import { connectThrough } from "../../src/ssh/mod.ts";
import { childrenOf, runs } from "../helpers/children.ts";
import { needing } from "../helpers/needs.ts";
import { programsOfSshd, Sshd } from "../helpers/sshd.ts";
import { until } from "../helpers/until.ts";
import { fillBlocks, isRead, ScriptedTarget } from "../iscsi-initiator/scripted-target.ts";

const test = suite("forward");
const withSshd = needing(test, programsOfSshd);

const children = () => childrenOf(process.pid, "ssh");

async function withSession(
  options: Partial<InitiatorOptions>,
  body: (session: Session, target: ScriptedTarget, sshd: Sshd) => Promise<void>,
  prepare: (sshd: Sshd) => void = () => {},
): Promise<void> {
  const sshd = await Sshd.start();
  const target = new ScriptedTarget();
  await target.start();
  prepare(sshd);
  const session = new Session({ ...target.options, connect: connectThrough(sshd.destination), ...options });
  try {
    await session.open();
    await body(session, target, sshd);
  } finally {
    await session.close();
    await target.stop();
    await sshd.stop();
  }
  await until(() => children().length === 0, "no ssh is left");
}

async function checkRead(session: Session, lba: number, blocks: number): Promise<void> {
  const into = new Uint8Array(blocks * 512);
  const expected = new Uint8Array(blocks * 512);
  fillBlocks(expected, lba);
  await session.read(lba * 512, into);
  assert.is(Buffer.compare(into, expected), 0, `blocks from ${lba} on`);
}

withSshd("settings for terminals in the user's configuration do not spoil the stream", async () => {
  const spoil = (sshd: Sshd) =>
    sshd.configureClient([
      "PermitLocalCommand yes",
      "LocalCommand echo spoiled",
      "RemoteCommand echo spoiled",
      "RequestTTY yes",
      "ControlMaster auto",
      `ControlPath ${sshd.path("shared")}`,
      "ControlPersist 60",
      "LogLevel QUIET",
      "LocalForward 127.0.0.1:1 127.0.0.1:1",
    ]);
  await withSession({}, async (session, target, sshd) => {
    await Promise.all(Array.from({ length: 40 }, (_, i) => checkRead(session, i * 1000, 1 + i * 20)));
    assert.is(target.peers.length, 1);
    assert.is(session.statistics.reconnects, 0);
    assert.equal(readdirSync(sshd.path(".")).filter((name) => name.startsWith("shared")), []);
  }, spoil);
});

withSshd("a link that falls silent: the session gives it up, its ssh ends, another one goes on", async () => {
  await withSession({ nopIntervalMs: 100, nopTimeoutMs: 2000 }, async (session) => {
    await checkRead(session, 5, 8);
    const first = children();
    assert.is(first.length, 1);
    process.kill(first[0]!, "SIGSTOP");
    await checkRead(session, 7, 8);
    assert.is(session.statistics.reconnects, 1);
    await until(() => !runs(first[0]!), "the one that hangs is ended");
  });
});

withSshd("a target that closes: read again on another connection, and the first ssh has ended", async () => {
  await withSession({}, async (session, target) => {
    const first = children();
    target.hook = (request, peer) => {
      if (!isRead(request) || peer.index > 1) return false;
      peer.socket.end();
      return true;
    };
    await checkRead(session, 3, 32);
    assert.is(target.peers.length, 2);
    await until(() => !first.some(runs), "it ends");
  });
});

/** The end of a connection that is tried. */
function endOf(destination: string): Promise<{ error: Error | undefined; called: string[] }> {
  const called: string[] = [];
  return new Promise((resolve) => {
    const handlers: TransportHandlers = {
      onConnect: () => void called.push("connect"),
      onData: () => void called.push("data"),
      onClose: (error) => resolve({ error, called: [...called, "close"] }),
    };
    connectThrough(destination)({ host: "127.0.0.1", port: 1 }, handlers);
    called.push("returned");
  });
}

test("a destination that is none, and no ssh: the end says so, after the start has returned", async () => {
  const { error, called } = await endOf("-oProxyCommand=x");
  assert.match(error?.message ?? "", /^no tunnel through -oProxyCommand=x: .* begins with a dash$/);
  assert.equal(called, ["returned", "close"]);
});

withSshd("destroyed at once: nothing is called any more, and no ssh is left", async () => {
  const sshd = await Sshd.start();
  try {
    const called: string[] = [];
    const handlers: TransportHandlers = {
      onConnect: () => void called.push("connect"),
      onData: () => void called.push("data"),
      onClose: () => void called.push("close"),
    };
    const before = childrenOf(process.pid);
    const transport = connectThrough(sshd.destination)({ host: "127.0.0.1", port: 1 }, handlers);
    const [started] = childrenOf(process.pid).filter((pid) => !before.includes(pid));
    transport.destroy();
    await until(() => !runs(started!), "it ends");
    // Calls that were due are made before this.
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(called, []);
  } finally {
    await sshd.stop();
  }
});

test.run();
