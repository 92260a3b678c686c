/** Targets that are silent, slow or shut: given up in time, tried again in growing intervals. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Session, TaskTimeoutError } from "../../src/iscsi-initiator/mod.ts";
import { until } from "../helpers/until.ts";
import { type Hook, isRead, ScriptedTarget } from "./scripted-target.ts";
import { checkRead, errorOf, onFirstRead, withSession } from "./sessions.ts";

const test = suite("targets that take their time");

test("a target that falls silent is given up after a ping, one that pings is answered", async () => {
  await withSession({ nopIntervalMs: 30, nopTimeoutMs: 1000 }, async (session, target) => {
    let isMute = false;
    let answered = 0;
    target.hook = (request, peer) => {
      if (request.opcode === 0 && request.tag === 0xffffffff && request.header.getUint32(20) === 99) {
        answered++;
      }
      return isMute && peer.index === 1;
    };
    const [peer] = target.peers;
    const ping = peer.pdu(0x20, 0x80, [[16, 4, 0xffffffff], [20, 4, 99], [24, 4, peer.statSN]]);
    peer.send(ping, ping);
    await checkRead(session, 1, 1);
    assert.is(answered, 2);
    isMute = true;
    await checkRead(session, 2, 1);
    assert.is(target.peers.length, 2);
  });
});

test("a connection lost while the disk is identified, and one whose window stays shut, are replaced", async () => {
  await withSession({ taskTimeoutMs: 1000, nopIntervalMs: 20 }, async (session, target) => {
    target.hook = (request, peer) => {
      if (peer.index === 1 && isRead(request)) peer.socket.destroy();
      else if (peer.index === 2 && request.opcode === 1 && request.cdb[0] === 0x12) peer.socket.destroy();
      else if (peer.index === 3) {
        peer.windowSize = 0;
        return false;
      } else return false;
      return true;
    };
    await checkRead(session, 7, 2);
    assert.is(target.peers.length, 4);
    assert.is(session.statistics.reconnects, 1);
  });
});

test("a command over its time: issued again, or failed, as the options say", async () => {
  for (const onTaskTimeout of ["reissue", "fail"] as const) {
    await withSession({ onTaskTimeout, taskTimeoutMs: 1000 }, async (session, target) => {
      target.hook = onFirstRead(() => {});
      if (onTaskTimeout === "reissue") await checkRead(session, 2, 8);
      else assert.instance(await errorOf(session.read(0, new Uint8Array(512))), TaskTimeoutError);
      await checkRead(session, 9, 8);
      assert.is(target.peers.length, 2);
    });
  }
});

test("a connection that breaks in every login is tried with growing waits, not in a tight loop", async () => {
  let now = 0;
  const delays: number[] = [];
  const clock = {
    nowMs: () => now,
    after(delayMs: number, callback: () => void) {
      if (delayMs >= 100 && delayMs !== 250) delays.push(delayMs);
      const timer = setTimeout(() => {
        now += delayMs;
        callback();
      }, delayMs >= 100 ? 0 : delayMs);
      return () => clearTimeout(timer);
    },
  };
  const target = new ScriptedTarget();
  await target.start();
  target.onConnect = (peer) => peer.socket.destroy();
  const session = new Session({
    ...target.options,
    retryFirst: true,
    clock,
    random: () => 0.999,
    backoffMinMs: 200,
    backoffMaxMs: 3000,
    loginTimeoutMs: 1000,
  });
  const opened = errorOf(session.open());
  while (delays.length < 6) await new Promise((resolve) => setTimeout(resolve, 1));
  await session.close();
  await opened;
  await target.stop();
  assert.equal(delays.slice(0, 6).map((delay) => Math.round(delay / 100) * 100), [
    200,
    400,
    800,
    1600,
    3000,
    3000,
  ]);
});

test("retryFirst waits for a target that is not there yet, also through refusals", async () => {
  const setUp = (target: ScriptedTarget) => {
    target.hook = (request, peer) => {
      if (peer.index === 1) peer.socket.destroy();
      else if (peer.index === 2) peer.send(peer.loginRefusal(request, 2, 3));
      else return false;
      return true;
    };
  };
  await withSession({ retryFirst: true }, (session) => checkRead(session, 4, 4), setUp);
});

/** Everything that a target can leave undone in the middle of a read, for ever. */
const undone: Record<string, Hook> = {
  "the answer": () => {},
  "the rest of a header": (request, peer) => peer.send(peer.dataOf(request)[0].subarray(0, 30)),
  "the rest of the data": (request, peer) => peer.send(peer.dataOf(request)[0].subarray(0, 3000)),
  "the status": (request, peer) => peer.send(...peer.dataOf(request)),
  "additional header segments that it announced": (request, peer) =>
    peer.send(peer.pdu(0x21, 0x80, [[4, 1, 255], [16, 4, request.tag]])),
};

for (const [what, act] of Object.entries(undone)) {
  for (const isMute of [true, false]) {
    const how = isMute ? "and falls silent" : "but answers pings";
    test(`a target that leaves out ${what}, ${how}: given up, read again; another session goes on`, async () => {
      const options = { nopIntervalMs: 50, nopTimeoutMs: 100, taskTimeoutMs: isMute ? 60_000 : 300 };
      await withSession(options, async (session, target, { errors }) => {
        const bystander = new Session({ ...target.options, isidQualifier: 8 });
        await bystander.open();
        let isStuck = false;
        const stick = onFirstRead((request, peer) => {
          isStuck = true;
          act(request, peer);
        });
        target.hook = (request, peer) => {
          if (peer.isidQualifier !== 7 || peer.index > 1) return false;
          return stick(request, peer) || (isStuck && isMute);
        };
        const read = checkRead(session, 3, 32);
        for (let lba = 0; lba < 5; lba++) await checkRead(bystander, lba, 64);
        await read.finally(() => bystander.close());
        assert.is(bystander.statistics.reconnects, 0);
        assert.match(errors[0].message, /silent: no answer to a ping|READ\(16\) was not done/);
      });
    });
  }
}

test("a window that never opens again: said, and read over the next connection", async () => {
  const setUp = (target: ScriptedTarget) => {
    target.onConnect = (peer) => void (peer.windowSize = peer.index === 1 ? 1 : 64);
    target.hook = (request, peer) => {
      if (isRead(request) && peer.index === 1) peer.windowSize = 0;
    };
  };
  await withSession({ taskTimeoutMs: 300, nopIntervalMs: 50 }, async (session, target, { errors }) => {
    await checkRead(session, 1, 1);
    await checkRead(session, 2, 1);
    assert.ok(target.requests.some(({ opcode, tag }) => opcode === 0 && tag !== 0xffffffff), "it was pinged");
    assert.match(errors[0].message, /the target took no command for 300 ms/);
  }, setUp);
});

test("close while a read waits to be tried again: it rejects", async () => {
  await withSession({ random: () => 0.999 }, async (session, target) => {
    target.hook = (request, peer) => isRead(request) && (peer.send(peer.response(request.tag, 8)), true);
    const read = errorOf(session.read(0, new Uint8Array(512)));
    await until(() => session.statistics.busyRetries > 6 && session.statistics.queued === 1, "it waits");
    await session.close();
    assert.is((await read).name, "SessionClosedError");
  });
});

test.run();
