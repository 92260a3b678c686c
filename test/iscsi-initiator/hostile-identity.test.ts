/** Targets that tell nonsense about their disk, or show another one: no read is ever sent to what is not it. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { IdentityError } from "../../src/iscsi-initiator/mod.ts";
import {
  fixedSense,
  type Hook,
  isRead,
  type Request,
  type ScriptedTarget,
  type TcpPeer,
} from "./scripted-target.ts";
import { checkRead, errorOf, onFirstRead, withSession } from "./sessions.ts";
import { healthyDisk, type TargetDisk } from "./target-disk.ts";

const test = suite("targets and the identity of their disk");

/** The question that is answered wrongly. */
type Question = (request: Request) => boolean;
const is = (opcode: number, page?: number): Question => ({ opcode: pdu, cdb }) =>
  pdu === 1 && cdb[0] === opcode &&
  (page === undefined ? (cdb[1] & 1) === 0 : (cdb[1] & 1) === 1 && cdb[2] === page);
const inquiry = is(0x12);
const capacity: Question = ({ opcode, cdb }) => opcode === 1 && cdb[0] === 0x9e && cdb[1] === 0x10;
const ready = is(0x00);

interface Script {
  readonly question: Question;
  readonly answer: (request: Request, peer: TcpPeer) => void;
  readonly says: RegExp;
}

const data = (...bytes: number[]): Script["answer"] => (request, peer) =>
  peer.answerWith(request, Uint8Array.from(bytes));
const sizes = (blocks: bigint, blockBytes: number): Script["answer"] => (request, peer) => {
  const answer = Buffer.alloc(32);
  answer.writeBigUInt64BE(blocks, 0);
  answer.writeUInt32BE(blockBytes, 8);
  peer.answerWith(request, answer);
};
const sense = (key: number, asc: number, ascq: number): Script["answer"] => (request, peer) =>
  peer.send(peer.response(request.tag, 2, fixedSense(key, asc, ascq)));
const device = (byte: number) => data(byte, ...new Uint8Array(35));
const noDisk = /there is no disk behind the LUN/;
const badBlocks = /a power of two from 512 to 1 MiB is needed/;

const scripts: Record<string, Script> = {
  "no inquiry data": { question: inquiry, answer: data(), says: /INQUIRY answered 0 bytes/ },
  "inquiry data that is cut short": {
    question: inquiry,
    answer: data(...new Uint8Array(35)),
    says: /INQUIRY answered 35 bytes/,
  },
  "no device": { question: inquiry, answer: device(0x7f), says: noDisk },
  "a tape": { question: inquiry, answer: device(1), says: noDisk },
  "a controller": { question: inquiry, answer: device(12), says: noDisk },
  "more inquiry data than asked for": {
    question: inquiry,
    answer: (request, peer) => peer.send(peer.dataIn(request.tag, 0, 0, new Uint8Array(256))),
    says: /more than the 255 bytes that INQUIRY asked for/,
  },
  "an inquiry that is refused": {
    question: inquiry,
    answer: sense(5, 0x25, 0),
    says: /logical unit not supported/,
  },
  "no capacity": { question: capacity, answer: data(), says: /READ CAPACITY\(16\) answered 0 bytes/ },
  "blocks of 0 bytes": { question: capacity, answer: sizes(100n, 0), says: badBlocks },
  "blocks of 520 bytes": { question: capacity, answer: sizes(100n, 520), says: badBlocks },
  "blocks of 2 GiB": { question: capacity, answer: sizes(100n, 2 ** 31), says: badBlocks },
  "2^64 blocks": { question: capacity, answer: sizes(2n ** 64n - 1n, 512), says: /more than 2\^53 bytes/ },
  "2^45 blocks": { question: capacity, answer: sizes(2n ** 45n, 512), says: /more than 2\^53 bytes/ },
  "another page of product data": {
    question: is(0x12, 0),
    answer: data(0, 0x83, 0, 1, 0),
    says: /not VPD page 0h/,
  },
  "a serial of another page": {
    question: is(0x12, 0x80),
    answer: data(0, 0x81, 0, 1, 65),
    says: /not VPD page 80h/,
  },
  "a medium error for every question": {
    question: ready,
    answer: sense(3, 0x11, 0),
    says: /TEST UNIT READY failed: MEDIUM ERROR/,
  },
  "a unit attention without an end": { question: ready, answer: sense(6, 0x29, 0), says: /UNIT ATTENTION/ },
  "no answer": { question: ready, answer: () => {}, says: /TEST UNIT READY was not done within 400 ms/ },
  "the end of the connection": {
    question: capacity,
    answer: (_, peer) => void peer.socket.destroy(),
    says: /closed the connection/,
  },
};

for (const [what, { question, answer, says }] of Object.entries(scripts)) {
  test(`${what}: said, and tried again until the target is sane`, async () => {
    const hook: Hook = (request, peer) => {
      if (peer.index > 2 || !question(request)) return false;
      answer(request, peer);
      return true;
    };
    const setUp = (target: ScriptedTarget) => void (target.hook = hook);
    await withSession({ retryFirst: true, taskTimeoutMs: 400 }, async (session, target, { errors }) => {
      assert.ok(errors.length >= 2);
      assert.match(errors[0].message, says);
      assert.not(target.requests.some((request) => isRead(request)));
      await checkRead(session, 6, 6);
    }, setUp);
  });
}

const odd: Record<string, Script["answer"]> = {
  "longest read of 1 block": data(0, 0xb0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0),
  "longest read of 2^32 - 1 blocks": data(0, 0xb0, 0, 12, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0),
  "page that says it is longer than it is": data(0, 0xb0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 7),
  "page without a longest read": data(0, 0xb0, 0, 0),
};
for (const [what, answer] of Object.entries(odd)) {
  test(`block limits with a ${what}: reads are right`, async () => {
    const setUp = (target: ScriptedTarget) => {
      target.hook = (request, peer) => is(0x12, 0xb0)(request) && (answer(request, peer), true);
    };
    await withSession({}, async (session) => {
      await Promise.all([checkRead(session, 9, 300), checkRead(session, 4000, 8)]);
    }, setUp);
  });
}

const others: Record<string, readonly [disk: Partial<TargetDisk>, says: RegExp]> = {
  "another serial number": [{ serial: "SCRIPTED-2" }, /its serial is SCRIPTED-2, it was SCRIPTED-1/],
  "no serial number": [{ serial: "" }, /its serial is , it was SCRIPTED-1/],
  "a smaller size": [{ blocks: healthyDisk.blocks - 1 }, /its sizeBytes is 536870400, it was 536870912/],
  "a larger size": [{ blocks: healthyDisk.blocks * 2 }, /its sizeBytes is 1073741824/],
};
for (const [what, [change, says]] of Object.entries(others)) {
  test(`a disk with ${what} after a reconnect: closed for good, and nothing is read from it`, async () => {
    await withSession({}, async (session, target, { states }) => {
      await checkRead(session, 1, 1);
      target.disk = { ...healthyDisk, ...change, fill: (into) => void into.fill(0xee) };
      target.hook = onFirstRead((_, peer) => void peer.socket.destroy());
      const into = new Uint8Array(4096);
      const results = await Promise.all([errorOf(session.read(0, into)), errorOf(session.read(8192, into))]);
      for (const error of results) {
        assert.instance(error, IdentityError);
        assert.match(error.message, says);
      }
      assert.ok(into.every((byte) => byte === 0));
      assert.is(states.at(-1), "closed");
      assert.instance(await errorOf(session.read(0, into)), IdentityError);
      assert.is(target.peers.length, 2, "it is not tried again");
    });
  });
}

test("a disk that the caller refuses after a reconnect closes the session for good", async () => {
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

test.run();
