/** Targets that misbehave: reads end right, or with a typed error, and never hang. */
import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  IdentityError,
  type InitiatorOptions,
  IscsiError,
  LoginError,
  ProtocolError,
  ScsiError,
  Session,
  SessionClosedError,
  TaskTimeoutError,
  TransportError,
} from "../../src/iscsi-initiator/mod.ts";
import { fillBlocks, fixedSense, type Hook, isRead, ScriptedTarget } from "./scripted-target.ts";

const test = suite("targets that misbehave");

/** Runs `body` with a target and an open session, and ends both. */
async function withSession(
  options: Partial<InitiatorOptions>,
  body: (session: Session, target: ScriptedTarget, states: string[]) => Promise<void>,
  setUp: (target: ScriptedTarget) => void = () => {},
): Promise<void> {
  const target = new ScriptedTarget();
  await target.start();
  setUp(target);
  const states: string[] = [];
  const session = new Session({
    ...target.options,
    onStateChange: (state) => states.push(state),
    ...options,
  });
  try {
    await session.open();
    await body(session, target, states);
  } finally {
    await session.close();
    await target.stop();
  }
}

async function checkRead(session: Session, lba: number, blocks: number): Promise<void> {
  const into = new Uint8Array(blocks * 512);
  const expected = new Uint8Array(blocks * 512);
  fillBlocks(expected, lba);
  await session.read(lba * 512, into);
  assert.ok(Buffer.compare(into, expected) === 0, `blocks from ${lba} on`);
}

async function errorOf(promise: Promise<unknown>): Promise<IscsiError> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, IscsiError);
    return error as IscsiError;
  }
  throw new Error("did not reject");
}

/** A hook for the first read only. */
function onFirstRead(act: Hook): Hook {
  let isDone = false;
  return (request, peer) => {
    if (isDone || !isRead(request)) return false;
    isDone = true;
    act(request, peer);
    return true;
  };
}

test("a healthy target: reads of many sizes side by side, closes in order", async () => {
  await withSession({}, async (session, target, states) => {
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

/** Faults after which the connection is given up, and the read is answered by the next one. */
const fatal: Record<string, Hook> = {
  "closes": (_, peer) => void peer.socket.destroy(),
  "answers with garbage": (_, peer) => peer.send(Buffer.alloc(4096, 0xff)),
  "answers in HTTP": (_, peer) => peer.send(Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n".repeat(8))),
  "uses the tag of no command": (request, peer) => peer.send(peer.response(request.tag + 77)),
  "sends data for the tag of no command": (request, peer) =>
    peer.send(peer.dataIn(request.tag + 77, 0, 0, new Uint8Array(512))),
  "skips a StatSN": (request, peer) => {
    peer.takeStatSN();
    peer.answer(request);
  },
  "sends data beyond the buffer": (request, peer) =>
    peer.send(peer.dataIn(request.tag, 0, 0, new Uint8Array(request.expectedBytes + 512))),
  "sends data at an offset beyond the buffer": (request, peer) =>
    peer.send(peer.dataIn(request.tag, 0xfffffe00, 0, new Uint8Array(512))),
  "sends the same data twice": (request, peer) =>
    peer.send(
      peer.dataIn(request.tag, 0, 0, new Uint8Array(512)),
      peer.dataIn(request.tag, 0, 1, new Uint8Array(512)),
    ),
  "skips a DataSN": (request, peer) => peer.send(peer.dataIn(request.tag, 0, 1, new Uint8Array(512))),
  "sends a data segment longer than allowed": (request, peer) =>
    peer.send(peer.pdu(0x25, 0, [[16, 4, request.tag], [5, 3, 0xffffff]])),
  "rejects the command": (request, peer) =>
    peer.send(
      peer.pdu(0x3f, 0x80, [[2, 1, 0x09], [16, 4, 0xffffffff], [24, 4, peer.takeStatSN()]], bytesOf(request)),
    ),
  "announces that it drops the session": (_, peer) =>
    peer.send(
      peer.pdu(0x32, 0x80, [[16, 4, 0xffffffff], [24, 4, peer.takeStatSN()], [36, 1, 3]], new Uint8Array()),
    ),
  "asks for a logout": (_, peer) =>
    peer.send(peer.pdu(0x32, 0x80, [[16, 4, 0xffffffff], [24, 4, peer.takeStatSN()], [36, 1, 1]])),
  "sends an R2T": (request, peer) => peer.send(peer.pdu(0x31, 0x80, [[16, 4, request.tag]])),
  "answers a ping that was not sent": (_, peer) =>
    peer.send(peer.pdu(0x20, 0x80, [[16, 4, 4711], [20, 4, 0xffffffff], [24, 4, peer.takeStatSN()]])),
};

function bytesOf(request: { header: DataView }): Uint8Array {
  return new Uint8Array(request.header.buffer as ArrayBuffer);
}

for (const [what, act] of Object.entries(fatal)) {
  test(`a target that ${what}: the read is issued again on a new connection`, async () => {
    await withSession({}, async (session, target, states) => {
      target.hook = onFirstRead(act);
      await Promise.all([checkRead(session, 3, 32), checkRead(session, 900, 8), checkRead(session, 7, 1)]);
      assert.is(target.peers.length, 2);
      assert.is(session.statistics.reconnects, 1);
      assert.ok(session.statistics.reissuedCommands >= 1);
      assert.equal(states, ["connecting", "ready", "waiting", "connecting", "ready"]);
    });
  });
}

for (const part of ["header", "data"] as const) {
  test(`a damaged ${part} digest: the read is issued again on a new connection`, async () => {
    const options = { headerDigest: part === "header", dataDigest: part === "data" };
    const errors: (Error | undefined)[] = [];
    const onStateChange = (_: string, error?: Error) => void errors.push(error);
    await withSession({ ...options, onStateChange }, async (session, target) => {
      target.hook = onFirstRead((request, peer) => {
        const pdu = peer.dataIn(request.tag, 0, 0, new Uint8Array(512));
        pdu[part === "header" ? 41 : pdu.length - 1] ^= 1;
        peer.send(pdu);
      });
      await checkRead(session, 3, 32);
      assert.is(session.statistics.reconnects, 1);
      const error = errors.find((found) => found !== undefined);
      assert.is(error?.name, "DigestError");
      assert.match(error!.message, /iqn\.2026-01\.test:scripted at 127\.0\.0\.1:/);
    });
  });
}

test("garbage before CHECK CONDITION: the read rejects and never resolves with it", async () => {
  await withSession({}, async (session, target) => {
    target.hook = onFirstRead((request, peer) => {
      const garbage = new Uint8Array(request.expectedBytes).fill(0xee);
      peer.send(
        peer.dataIn(request.tag, 0, 0, garbage),
        peer.response(request.tag, 2, fixedSense(3, 0x11, 0)),
      );
    });
    const error = await errorOf(session.read(0, new Uint8Array(4096)));
    assert.instance(error, ScsiError);
    const { sense } = error as ScsiError;
    assert.equal([sense!.key, sense!.asc, sense!.ascq], [3, 0x11, 0]);
    assert.match(error.message, /READ\(16\) failed: MEDIUM ERROR, unrecovered read error \(3\/11\/00\)/);
    await checkRead(session, 0, 8);
    assert.is(target.peers.length, 1);
  });
});

test("GOOD before the data, or with less of it: the read rejects", async () => {
  await withSession({}, async (session, target) => {
    target.hook = onFirstRead((request, peer) => peer.send(peer.response(request.tag)));
    assert.instance(await errorOf(session.read(0, new Uint8Array(4096))), ProtocolError);
    target.hook = onFirstRead((request, peer) => {
      const residual = [[1, 1, 0x82], [44, 4, 512]] as const;
      const data = peer.dataIn(request.tag, 0, 0, new Uint8Array(request.expectedBytes - 512));
      peer.send(data, peer.response(request.tag, 0, undefined, residual));
    });
    assert.match((await errorOf(session.read(0, new Uint8Array(4096)))).message, /3584 of 4096 bytes/);
    await checkRead(session, 0, 8);
  });
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

test("a target failure is tried again, then an error", async () => {
  await withSession({}, async (session, target) => {
    let reads = 0;
    target.hook = (request, peer) => {
      if (!isRead(request)) return false;
      reads++;
      peer.send(peer.response(request.tag, 0, undefined, [[2, 1, 1]]));
      return true;
    };
    assert.is((await errorOf(session.read(0, new Uint8Array(512)))).name, "TargetFailureError");
    assert.is(reads, 6);
  });
});

test("a command that is rejected each time fails in the end", async () => {
  await withSession({}, async (session, target) => {
    target.hook = (request, peer) => {
      if (isRead(request)) fatal["rejects the command"](request, peer);
      return isRead(request);
    };
    assert.match((await errorOf(session.read(0, new Uint8Array(512)))).message, /rejected READ\(16\)/);
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

test("a target that falls silent is given up after a ping, one that pings is answered", async () => {
  await withSession({ nopIntervalMs: 30, nopTimeoutMs: 60 }, async (session, target) => {
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
  await withSession({ taskTimeoutMs: 60, nopIntervalMs: 20 }, async (session, target) => {
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

test("any damaged byte in a header: the right data or a typed error, in bounded time", async () => {
  const options = { taskTimeoutMs: 40, nopIntervalMs: 15, nopTimeoutMs: 25 };
  const damage = fc.tuple(fc.nat(5), fc.nat(47), fc.integer({ min: 1, max: 255 }));
  await withSession(options, async (session, target) => {
    await fc.assert(
      fc.asyncProperty(damage, async ([which, at, mask]) => {
        target.hook = onFirstRead((request, peer) => {
          const data = new Uint8Array(request.expectedBytes);
          fillBlocks(data, 3);
          const pdus: Buffer[] = [];
          for (let from = 0; from < data.length; from += 1024) {
            pdus.push(peer.dataIn(request.tag, from, from / 1024, data.subarray(from, from + 1024)));
          }
          pdus.push(peer.response(request.tag));
          pdus[which % pdus.length][at] ^= mask;
          peer.send(...pdus);
        });
        try {
          await checkRead(session, 3, 8);
        } catch (error) {
          assert.instance(error, IscsiError);
        }
      }),
      { numRuns: 60 },
    );
    target.hook = () => {};
    await checkRead(session, 3, 8);
  });
});

test("a command over its time: issued again, or failed, as the options say", async () => {
  for (const onTaskTimeout of ["reissue", "fail"] as const) {
    await withSession({ onTaskTimeout, taskTimeoutMs: 60 }, async (session, target) => {
      target.hook = onFirstRead(() => {});
      if (onTaskTimeout === "reissue") await checkRead(session, 2, 8);
      else assert.instance(await errorOf(session.read(0, new Uint8Array(512))), TaskTimeoutError);
      await checkRead(session, 9, 8);
      assert.is(target.peers.length, 2);
    });
  }
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

test("logins refused: each class is a typed error that names target and portal, not the secret", async () => {
  const cases = [[2, 1, "authentication"], [2, 2, "authorization"], [2, 3, "notFound"], [
    3,
    1,
    "unavailable",
  ]];
  for (const [statusClass, detail, failure] of cases as [number, number, string][]) {
    const setUp = (target: ScriptedTarget) => {
      target.hook = (request, peer) => {
        peer.send(peer.loginRefusal(request, statusClass, detail));
        return true;
      };
    };
    const options = { chap: { user: "me", secret: "very-secret-word" } };
    const error = await errorOf(withSession(options, () => Promise.resolve(), setUp)) as LoginError;
    assert.equal([error.failure, error.statusClass, error.statusDetail], [failure, statusClass, detail]);
    assert.match(error.message, /iqn\.2026-01\.test:scripted at 127\.0\.0\.1:\d+/);
    assert.not.match(JSON.stringify(error) + error.stack, /very-secret-word/);
  }
});

test("redirects are followed, but not for ever", async () => {
  const other = new ScriptedTarget();
  await other.start();
  const moved = (port: number): Hook => (request, peer) => {
    peer.send(peer.loginRefusal(request, 1, 1, `TargetAddress=127.0.0.1:${port},1\0`));
    return true;
  };
  await withSession({}, async (session) => {
    await checkRead(session, 4, 4);
    assert.is(other.peers.length, 1);
  }, (target) => target.hook = moved(other.port));
  const error = await errorOf(
    withSession({}, () => Promise.resolve(), (target) => target.hook = moved(target.port)),
  );
  assert.is((error as LoginError).failure, "redirect");
  await other.stop();
});

test("logins that break the rules end in an error: text cut short, endless, wrong stage, hung", async () => {
  const hooks: Record<string, Hook> = {
    "text cut short": (request, peer) => peer.send(peer.loginResponse(request, "AuthMethod=No")),
    "text without a key": (request, peer) => peer.send(peer.loginResponse(request, "=x\0")),
    "C bit for ever": (request, peer) => peer.send(peer.loginResponse(request, "X-a=b\0".repeat(900), 0x40)),
    "rounds for ever": (request, peer) => peer.send(peer.loginResponse(request, "", 0)),
    "another stage": (request, peer) => peer.send(peer.loginResponse(request, "", 0x87)),
    "a read's answer": (request, peer) => peer.send(peer.response(request.tag)),
    "nothing": () => {},
  };
  for (const [what, act] of Object.entries(hooks)) {
    const setUp = (target: ScriptedTarget) => {
      target.hook = (request, peer) => {
        act(request, peer);
        return true;
      };
    };
    const error = await errorOf(withSession({ loginTimeoutMs: 150 }, () => Promise.resolve(), setUp));
    assert.instance(error, what === "nothing" ? TransportError : ProtocolError, what);
  }
});

test("login text in pieces (C bit) and keys that the target begins with", async () => {
  await withSession({}, async (session, target) => {
    await checkRead(session, 4, 4);
    const answers = target.requests.map((request) => Buffer.from(request.data).toString());
    assert.ok(answers.some((text) => text.includes("X-com.test.key=NotUnderstood\0")));
  }, (target) => {
    const pieces = ["AuthMethod=No", "ne\0X-com.test.key=", "1\0"];
    target.hook = (request, peer) => {
      const piece = request.opcode === 3 ? pieces.shift() : undefined;
      if (piece === undefined) return false;
      peer.send(peer.loginResponse(request, piece, pieces.length > 0 ? 0x40 : 0));
      return true;
    };
  });
});

test("another disk behind the LUN after a reconnect closes the session for good", async () => {
  let calls = 0;
  const verifyIdentity = () => {
    if (++calls > 1) throw new Error("not my disk");
  };
  await withSession({ verifyIdentity }, async (session, target) => {
    target.hook = onFirstRead((_, peer) => void peer.socket.destroy());
    const error = await errorOf(session.read(0, new Uint8Array(512)));
    assert.instance(error, IdentityError);
    assert.match(error.message, /not my disk/);
    assert.is(session.state, "closed");
  });
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

test.run();
