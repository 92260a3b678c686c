/**
 * Targets whose PDUs cannot be followed: the connection is given up with a reason, another session goes on
 * meanwhile, and the reads are answered right by the next connection, once the target is sane again.
 */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Session } from "../../src/iscsi-initiator/mod.ts";
import { bytesOf, type Hook } from "./scripted-target.ts";
import { checkRead, onFirstRead, withSession } from "./sessions.ts";

const test = suite("targets whose PDUs cannot be followed");

interface Script {
  readonly act: Hook;
  /** What the session says of it. */
  readonly why: RegExp;
}

const orphan = /answered a command that it was not given/;
const outOfOrder = /data of READ\(16\) out of order/;
const tooMuch = /more than the \d+ bytes that READ\(16\) asked for/;
const closed = /the target closed the connection|connection lost/;
const block = () => new Uint8Array(512).fill(0xee);

/** How a connection ends, or what it says before it does. */
const ends: Record<string, Script> = {
  "closes": { why: closed, act: (_, peer) => void peer.socket.destroy() },
  "resets the connection": { why: closed, act: (_, peer) => void peer.socket.resetAndDestroy() },
  "closes its sending half": { why: closed, act: (_, peer) => void peer.socket.end() },
  "closes in the middle of a header": {
    why: closed,
    act: (request, peer) => void peer.socket.end(peer.dataOf(request)[0].subarray(0, 21)),
  },
  "closes in the middle of data": {
    why: closed,
    act: (request, peer) => void peer.socket.end(peer.dataOf(request)[0].subarray(0, 300)),
  },
  "closes between data and status": {
    why: closed,
    act: (request, peer) => void peer.socket.end(Buffer.concat(peer.dataOf(request))),
  },
  "closes after garbage as data": {
    why: closed,
    act: (request, peer) => void peer.socket.end(peer.dataIn(request.tag, 0, 0, block())),
  },
  "announces that it drops the connection": {
    why: /announced that it drops the connection/,
    act: (_, peer) => peer.send(peer.asyncMessage(2)),
  },
  "announces that it drops the session, and asks for 18 hours of waiting": {
    why: /announced that it drops the connection/,
    act: (_, peer) => peer.send(peer.asyncMessage(3, undefined, [[40, 2, 0xffff], [42, 2, 0xffff]])),
  },
  "asks for a logout": {
    why: /asked for a logout/,
    act: (_, peer) => peer.send(peer.asyncMessage(1)),
  },
  "asks for new negotiations": {
    why: /asked for a logout/,
    act: (_, peer) => peer.send(peer.asyncMessage(4)),
  },
  "rejects the command": {
    why: /rejected READ\(16\) \(reason 0x9\)/,
    act: (request, peer) => peer.send(peer.reject(9, bytesOf(request))),
  },
  "rejects a command that nobody sent": {
    why: /rejected a request/,
    act: (request, peer) => {
      const other = bytesOf(request).slice();
      other.fill(0x7f, 16, 20);
      peer.send(peer.reject(4, other));
    },
  },
  "rejects without saying what": {
    why: /rejected a request/,
    act: (_, peer) => peer.send(peer.reject(0xff, new Uint8Array(3))),
  },
};

/** What is not iSCSI, or not what a target sends. */
const nonsense: Record<string, Script> = {
  "answers with garbage": { why: /bytes in one PDU/, act: (_, peer) => peer.send(Buffer.alloc(4096, 0xff)) },
  "answers in HTTP": {
    why: /bytes in one PDU/,
    act: (_, peer) => peer.send(Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n".repeat(8))),
  },
  "answers with zeroes": {
    why: /opcode 0x0/,
    act: (_, peer) => peer.send(Buffer.alloc(4096)),
  },
  "echoes the command": {
    why: /opcode 0x1$|opcode 0x1 /,
    act: (request, peer) => peer.send(bytesOf(request)),
  },
  "sends an R2T": {
    why: /opcode 0x31/,
    act: (request, peer) => peer.send(peer.pdu(0x31, 0x80, [[16, 4, request.tag]])),
  },
  "sends an opcode that is not defined": {
    why: /opcode 0x2f/,
    act: (request, peer) => peer.send(peer.pdu(0x2f, 0x80, [[16, 4, request.tag]])),
  },
  "sends text that was not asked for": {
    why: /opcode 0x24/,
    act: (_, peer) => peer.send(peer.pdu(0x24, 0x80, [], Buffer.from("MaxRecvDataSegmentLength=16777215\0"))),
  },
  "sends the answer to a task management request": {
    why: /opcode 0x22/,
    act: (request, peer) => peer.send(peer.pdu(0x22, 0x80, [[16, 4, request.tag]])),
  },
  "answers a login again": {
    why: /opcode 0x23/,
    act: (request, peer) => peer.send(peer.loginResponse(request, "DataDigest=CRC32C\0", 0x87)),
  },
  "answers a logout that was not sent": {
    why: /answered a logout that was not sent/,
    act: (request, peer) =>
      peer.send(peer.pdu(0x26, 0x80, [[16, 4, request.tag], [24, 4, peer.takeStatSN()]])),
  },
  "answers a ping that was not sent": {
    why: /answered a ping that was not sent/,
    act: (_, peer) =>
      peer.send(peer.pdu(0x20, 0x80, [[16, 4, 4711], [20, 4, 0xffffffff], [24, 4, peer.takeStatSN()]])),
  },
};

/** Data and statuses that do not belong where they are sent. */
const misplaced: Record<string, Script> = {
  "uses the tag of no command": {
    why: orphan,
    act: (request, peer) => peer.send(peer.response(request.tag + 77)),
  },
  "uses the reserved tag": { why: orphan, act: (_, peer) => peer.send(peer.response(0xffffffff)) },
  "sends data for the tag of no command": {
    why: orphan,
    act: (request, peer) => peer.send(peer.dataIn(request.tag + 77, 0, 0, block())),
  },
  "sends a status before the data, and then the data": {
    why: orphan,
    act: (request, peer) => peer.send(peer.response(request.tag, 8), peer.dataIn(request.tag, 0, 0, block())),
  },
  "skips a StatSN": {
    why: /StatSN 1009 instead of 1008|StatSN \d+ instead of \d+/,
    act: (request, peer) => {
      peer.takeStatSN();
      peer.answer(request);
    },
  },
  "repeats a StatSN": {
    why: /StatSN \d+ instead of \d+/,
    act: (request, peer) => {
      peer.statSN--;
      peer.answer(request);
    },
  },
  "jumps to the other half of the StatSNs": {
    why: /StatSN \d+ instead of \d+/,
    act: (request, peer) => {
      peer.statSN = (peer.statSN + 0x80000000) >>> 0;
      peer.answer(request);
    },
  },
  "sends data beyond the buffer": {
    why: tooMuch,
    act: (request, peer) =>
      peer.send(peer.dataIn(request.tag, 0, 0, new Uint8Array(request.expectedBytes + 4))),
  },
  "sends one byte beyond the buffer, after the rest": {
    why: tooMuch,
    act: (request, peer) => {
      const pdus = peer.dataOf(request);
      peer.send(...pdus, peer.dataIn(request.tag, request.expectedBytes, pdus.length, Uint8Array.of(1)));
    },
  },
  "sends data at an offset beyond the buffer": {
    why: outOfOrder,
    act: (request, peer) => peer.send(peer.dataIn(request.tag, 0xfffffe00, 0, block())),
  },
  "sends the same data twice": {
    why: outOfOrder,
    act: (request, peer) =>
      peer.send(peer.dataIn(request.tag, 0, 0, block()), peer.dataIn(request.tag, 0, 1, block())),
  },
  "sends data that overlaps what came before": {
    why: outOfOrder,
    act: (request, peer) =>
      peer.send(
        peer.dataIn(request.tag, 0, 0, new Uint8Array(1024)),
        peer.dataIn(request.tag, 512, 1, new Uint8Array(1024)),
      ),
  },
  "leaves a gap in the data": {
    why: outOfOrder,
    act: (request, peer) =>
      peer.send(peer.dataIn(request.tag, 0, 0, block()), peer.dataIn(request.tag, 1024, 1, block())),
  },
  "begins with the last of the data": {
    why: outOfOrder,
    act: (request, peer) => peer.send(...peer.dataOf(request, 512).reverse()),
  },
  "skips a DataSN": {
    why: outOfOrder,
    act: (request, peer) => peer.send(peer.dataIn(request.tag, 0, 1, block())),
  },
  "repeats a DataSN": {
    why: outOfOrder,
    act: (request, peer) =>
      peer.send(peer.dataIn(request.tag, 0, 0, block()), peer.dataIn(request.tag, 512, 0, block())),
  },
  "sends a data segment of 16 MiB less one": {
    why: /sent 16777215 bytes in one PDU, not 262144/,
    act: (request, peer) => peer.send(peer.dataIn(request.tag, 0, 0, new Uint8Array(), [[5, 3, 0xffffff]])),
  },
  "sends a data segment one byte longer than declared": {
    why: /sent 262145 bytes in one PDU, not 262144/,
    act: (request, peer) => peer.send(peer.dataIn(request.tag, 0, 0, new Uint8Array(), [[5, 3, 262145]])),
  },
  "says that less data follows than does": {
    why: /opcode|bytes in one PDU|not given/,
    act: (request, peer) =>
      peer.send(peer.dataIn(request.tag, 0, 0, new Uint8Array(4096).fill(0xee), [[5, 3, 64]])),
  },
  "sends additional header segments where there are none": {
    why: /opcode|bytes in one PDU|not given/,
    act: (request, peer) => {
      peer.send(peer.dataIn(request.tag, 0, 0, block(), [[4, 1, 0xff]]), Buffer.alloc(4096, 0xff));
    },
  },
};

for (const [what, { act, why }] of Object.entries({ ...ends, ...nonsense, ...misplaced })) {
  test(`a target that ${what}: the read is issued again on a new connection`, async () => {
    await withSession({}, async (session, target, { states, errors }) => {
      const bystander = new Session({ ...target.options, isidQualifier: 8 });
      await bystander.open();
      const misbehave = onFirstRead(act);
      target.hook = (request, peer) => peer.isidQualifier === 7 && misbehave(request, peer);
      await Promise.all([
        ...[checkRead(session, 3, 32), checkRead(session, 900, 8), checkRead(session, 7, 1)],
        ...[1, 2, 3].map((lba) => checkRead(bystander, lba, 100)),
      ]).finally(() => bystander.close());
      assert.is(bystander.statistics.reconnects, 0);
      assert.is(session.statistics.reconnects, 1);
      assert.ok(session.statistics.reissuedCommands >= 1);
      assert.equal(states, ["connecting", "ready", "waiting", "connecting", "ready"]);
      assert.match(errors[0].message, why);
      assert.match(errors[0].message, /\(target iqn\.2026-01\.test:scripted at 127\.0\.0\.1:\d+\)$/);
    });
  });
}

for (const part of ["header", "data"] as const) {
  test(`a damaged ${part} digest: the read is issued again on a new connection`, async () => {
    const options = { headerDigest: part === "header", dataDigest: part === "data" };
    await withSession(options, async (session, target, { errors }) => {
      target.hook = onFirstRead((request, peer) => {
        const pdu = peer.dataIn(request.tag, 0, 0, block());
        pdu[part === "header" ? 41 : pdu.length - 1] ^= 1;
        peer.send(pdu);
      });
      await checkRead(session, 3, 32);
      assert.is(session.statistics.reconnects, 1);
      assert.is(errors[0].name, "DigestError");
      assert.match(errors[0].message, /iqn\.2026-01\.test:scripted at 127\.0\.0\.1:/);
    });
  });
}

test.run();
