/** Reads from a target in order: sizes, digests, windows, aborts, limits. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { SessionClosedError } from "../../src/iscsi-initiator/mod.ts";
import { fixedSense, isRead, type ScriptedTarget } from "./scripted-target.ts";
import { checkRead, errorOf, onFirstRead, withSession } from "./sessions.ts";

const test = suite("reads");

test("a healthy target: reads of many sizes side by side, closes in order", async () => {
  await withSession({}, async (session, target, { states }) => {
    assert.is(session.identity.sizeBytes, 512 << 20);
    assert.is(session.identity.serial, "SCRIPTED-1");
    await Promise.all(Array.from({ length: 200 }, (_, i) => checkRead(session, i * 1000, 1 + i % 40)));
    await checkRead(session, 5, 16384);
    await session.read(0, new Uint8Array());
    assert.is(session.statistics.queued, 0);
    await session.close();
    assert.is(target.requests.at(-1)!.opcode, 0x06);
    assert.equal(states, ["connecting", "ready", "closed"]);
  });
});

test("both digests on", async () => {
  await withSession({ headerDigest: true, dataDigest: true }, async (session, target) => {
    assert.ok(target.peers[0].digests.header && target.peers[0].digests.data);
    await Promise.all(Array.from({ length: 20 }, (_, i) => checkRead(session, i, 1 + i)));
  });
});

test("CmdSN and StatSN wrap around", async () => {
  const setUp = (target: ScriptedTarget) => {
    target.onConnect = (peer) => (peer.statSN = 0xfffffffa);
  };
  await withSession({ initialCmdSN: 0xfffffff8 }, async (session) => {
    for (let i = 0; i < 30; i++) await checkRead(session, i, 1);
  }, setUp);
});

test("unit attentions and BUSY pass: the command is sent again, but not for ever", async () => {
  await withSession({}, async (session, target) => {
    let left = 6;
    target.hook = (request, peer) => {
      if (!isRead(request) || left-- <= 0) return false;
      const reply = [
        () => peer.response(request.tag, 2, fixedSense(6, 0x29, 0)),
        () => peer.response(request.tag, 8),
        () => peer.response(request.tag, 0x28),
      ];
      peer.send(reply[left % 3]());
      return true;
    };
    await checkRead(session, 10, 8);
    assert.is(session.statistics.unitAttentions, 2);
    assert.is(session.statistics.busyRetries, 4);
    target.hook = (request, peer) => {
      if (isRead(request)) peer.send(peer.response(request.tag, 2, fixedSense(6, 0x29, 0)));
      return isRead(request);
    };
    assert.match((await errorOf(session.read(0, new Uint8Array(512)))).message, /UNIT ATTENTION/);
  });
});

test("never more in flight than the window and maxTasks allow; a shut window opens again", async () => {
  let mostInFlight = 0;
  let pending: (() => void)[] = [];
  await withSession({ maxTasks: 8, nopIntervalMs: 20 }, async (session, target) => {
    const reads = Array.from({ length: 40 }, (_, i) => checkRead(session, i * 9, 2));
    while (session.statistics.inFlight > 0) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      mostInFlight = Math.max(mostInFlight, pending.length);
      const now = pending;
      pending = [];
      for (const answer of now) answer();
    }
    assert.is(mostInFlight, 4);
    // Shut now; the answer to a ping opens it.
    target.peers[0].windowSize = 64;
    await Promise.all(reads);
  }, (target) => {
    target.hook = (request, peer) => {
      if (!isRead(request) || peer.windowSize === 64) return false;
      pending.push(() => {
        peer.windowSize = target.requests.filter(isRead).length < 12 ? 4 : 0;
        peer.answer(request);
      });
      return true;
    };
    target.onConnect = (peer) => (peer.windowSize = 4);
  });
});

test("an aborted read rejects at once and its buffer stays untouched, even by data under way", async () => {
  await withSession({}, async (session, target) => {
    let finish = () => {};
    let arrived = () => {};
    const isUnderWay = new Promise<void>((resolve) => (arrived = resolve));
    target.hook = onFirstRead((request, peer) => {
      const pdu = peer.dataIn(request.tag, 0, 0, new Uint8Array(4096).fill(0xaa));
      peer.send(pdu.subarray(0, 1000));
      finish = () => peer.send(pdu.subarray(1000), peer.response(request.tag));
      arrived();
    });
    const controller = new AbortController();
    const into = new Uint8Array(4096);
    const read = session.read(0, into, { signal: controller.signal });
    await isUnderWay;
    while (into[0] !== 0xaa) await new Promise((resolve) => setTimeout(resolve, 1));
    controller.abort(new Error("enough"));
    assert.is(await read.catch((error) => error.message), "enough");
    into.fill(0);
    finish();
    await checkRead(session, 5, 8);
    assert.ok(into.every((byte) => byte === 0));
    assert.is(target.peers.length, 1);
  });
});

test("close: what is pending rejects, what comes late is not stored", async () => {
  await withSession({}, async (session, target) => {
    let late = () => {};
    target.hook = onFirstRead((request, peer) => void (late = () => peer.answer(request)));
    const into = new Uint8Array(512);
    const read = errorOf(session.read(512, into));
    while (!target.requests.some(isRead)) await new Promise((resolve) => setTimeout(resolve, 1));
    const closed = session.close();
    late();
    assert.instance(await read, SessionClosedError);
    await closed;
    assert.ok(into.every((byte) => byte === 0));
    assert.instance(await errorOf(session.read(0, into)), SessionClosedError);
  });
});

test("more requests than may wait: the one too many rejects", async () => {
  await withSession({ maxTasks: 1, maxQueuedRequests: 3 }, async (session) => {
    const reads = Array.from({ length: 5 }, (_, i) => session.read(i * 512, new Uint8Array(512)));
    const results = await Promise.allSettled(reads);
    assert.equal(results.map((result) => result.status), [...Array(4).fill("fulfilled"), "rejected"]);
    assert.is((results[4] as PromiseRejectedResult).reason.name, "QueueFullError");
  });
});

test("reads that are not whole blocks on the disk are a RangeError", async () => {
  await withSession({}, async (session) => {
    for (const [offset, length] of [[1, 512], [0, 511], [-512, 512], [512 << 20, 512], [NaN, 512]]) {
      const error = await session.read(offset, new Uint8Array(length)).catch((caught) => caught);
      assert.instance(error, RangeError);
    }
  });
});

test.run();
