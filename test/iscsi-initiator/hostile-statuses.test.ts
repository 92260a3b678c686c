/**
 * Targets that end reads wrongly, in PDUs that can be followed: nothing of what they sent is answered, the
 * read rejects with what they said, and the connection goes on. And what is odd, but allowed or harmless: the
 * read is right.
 */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { ProtocolError, ScsiError, Session } from "../../src/iscsi-initiator/mod.ts";
import { type Field, fixedSense, type Hook, type Request, type TcpPeer } from "./scripted-target.ts";
import { checkRead, errorOf, onFirstRead, withSession } from "./sessions.ts";

const test = suite("targets that end reads wrongly");

const garbage = (request: Request, peer: TcpPeer, bytes = request.expectedBytes) =>
  peer.dataIn(request.tag, 0, 0, new Uint8Array(bytes).fill(0xee));
const residual = (flags: number, bytes: number): Field[] => [[1, 1, 0x80 | flags], [44, 4, bytes]];

/** Garbage as data, then this status. */
const endsWith = (status: number, sense?: Uint8Array, extra?: Field[]): Hook => (request, peer) =>
  peer.send(garbage(request, peer), peer.response(request.tag, status, sense, extra));

/** The status in the one Data-In. */
const endsInData = (...fields: Field[]): Hook => (request, peer) => {
  const data = new Uint8Array(request.expectedBytes).fill(0xee);
  peer.send(peer.dataIn(request.tag, 0, 0, data, [[1, 1, 0x81], [24, 4, peer.takeStatSN()], ...fields]));
};

/** A SCSI Response whose data segment is these bytes. */
const senseSegment = (bytes: ArrayLike<number>): Hook => (request, peer) => {
  const fields: Field[] = [[3, 1, 2], [16, 4, request.tag], [24, 4, peer.takeStatSN()]];
  peer.send(garbage(request, peer), peer.pdu(0x21, 0x80, fields, Uint8Array.from(bytes)));
};

const wrong: Record<string, { readonly act: Hook; readonly says: RegExp }> = {
  "garbage, then a medium error": {
    act: endsWith(2, fixedSense(3, 0x11, 0)),
    says: /unrecovered read error/,
  },
  "garbage, then a hardware error": { act: endsWith(2, fixedSense(4, 0x44, 0)), says: /HARDWARE ERROR/ },
  "garbage, then that it is out of range": {
    act: endsWith(2, fixedSense(5, 0x21, 0)),
    says: /address out of range/,
  },
  "garbage and a medium error in one Data-In": {
    act: endsInData([3, 1, 2]),
    says: /CHECK CONDITION without/,
  },
  "garbage, then RESERVATION CONFLICT": { act: endsWith(0x18), says: /RESERVATION CONFLICT/ },
  "garbage, then ACA ACTIVE": { act: endsWith(0x30), says: /ACA ACTIVE/ },
  "garbage, then CONDITION MET": { act: endsWith(4), says: /CONDITION MET/ },
  "garbage, then a status that is not defined": { act: endsWith(0x5a), says: /SCSI status 0x5a/ },
  "sense data of no bytes": { act: senseSegment([0, 0]), says: /without readable sense/ },
  "sense data that says it is longer than it is": {
    act: senseSegment([0xff, 0xff, 0x70]),
    says: /without readable/,
  },
  "sense data in no known format": {
    act: senseSegment([0, 4, 0x11, 1, 2, 3]),
    says: /without readable sense/,
  },
  "half a length of sense data": { act: senseSegment([0]), says: /without readable sense/ },
  "sense data of 200 KiB": {
    act: senseSegment(new Uint8Array(200 << 10).fill(0x72)),
    says: /NOT READY \(2\/72\/72\)/,
  },
  "GOOD without any data": {
    act: (request, peer) => peer.send(peer.response(request.tag)),
    says: /0 of 4096 bytes/,
  },
  "GOOD with less data": {
    act: (request, peer) => peer.send(garbage(request, peer, 4092), peer.response(request.tag)),
    says: /4092 of 4096 bytes/,
  },
  "GOOD with less data, as its residual says": {
    act: (request, peer) =>
      peer.send(garbage(request, peer, 3584), peer.response(request.tag, 0, undefined, residual(2, 512))),
    says: /3584 of 4096 bytes/,
  },
  "GOOD with all data, of which the residual says that it is none": {
    act: endsWith(0, undefined, residual(2, 4096)),
    says: /ended READ\(16\) well, but/,
  },
  "GOOD with a residual larger than the read": {
    act: endsWith(0, undefined, residual(2, 0xffffffff)),
    says: /ended READ\(16\) well, but/,
  },
  "GOOD with an overflow": {
    act: endsWith(0, undefined, residual(4, 1)),
    says: /ended READ\(16\) well, but/,
  },
  "GOOD and a residual in the Data-In": {
    act: endsInData([1, 1, 0x83], [44, 4, 100]),
    says: /ended READ\(16\) well, but/,
  },
};

for (const [what, { act, says }] of Object.entries(wrong)) {
  test(`${what}: the read rejects, and the connection goes on`, async () => {
    await withSession({}, async (session, target) => {
      target.hook = onFirstRead(act);
      const into = new Uint8Array(4096);
      const error = await errorOf(session.read(4096, into));
      assert.ok(error instanceof ScsiError || error instanceof ProtocolError);
      assert.match(error.message, says);
      assert.is(session.statistics.bytesRead, 0);
      into.fill(0x11);
      await checkRead(session, 8, 8);
      assert.ok(into.every((byte) => byte === 0x11), "the buffer of the read that rejected is left alone");
      assert.is(target.peers.length, 1);
    });
  });
}

/** Sends a PDU of no consequence, then the answer. */
const after = (pdu: (peer: TcpPeer, request: Request) => Uint8Array): Hook => (request, peer) => {
  peer.send(pdu(peer, request));
  peer.answer(request);
};

const harmless: Record<string, Hook> = {
  "reserved bits in every Data-In": (request, peer) => {
    const pdus = peer.dataOf(request);
    for (const pdu of pdus) [pdu[0], pdu[2], pdu[3], pdu[21]] = [0xe5, 0xff, 0xff, 0xff];
    peer.send(...pdus, peer.response(request.tag));
  },
  "a target transfer tag in the Data-In": (request, peer) => {
    const pdus = peer.dataOf(request);
    for (const pdu of pdus) pdu.writeUInt32BE(77, 20);
    peer.send(...pdus, peer.response(request.tag));
  },
  "another LUN in the Data-In": (request, peer) => {
    const pdus = peer.dataOf(request);
    for (const pdu of pdus) pdu.fill(0x3f, 8, 16);
    peer.send(...pdus, peer.response(request.tag));
  },
  "additional header segments of 1020 bytes": (request, peer) => {
    for (const pdu of peer.dataOf(request)) {
      pdu[4] = 255;
      peer.send(pdu.subarray(0, 48), new Uint8Array(1020).fill(0xa5), pdu.subarray(48));
    }
    peer.send(peer.response(request.tag));
  },
  "garbage as padding": (request, peer) => {
    for (const pdu of peer.dataOf(request, 1023)) {
      pdu.fill(0xff, 48 + pdu.readUIntBE(5, 3));
      peer.send(pdu);
    }
    peer.send(peer.response(request.tag));
  },
  "a byte at a time, each a Data-In": (request, peer) =>
    peer.send(...peer.dataOf(request, 1), peer.response(request.tag)),
  "thousands of empty Data-Ins before the data": (request, peer) => {
    const empty = Array.from({ length: 5000 }, (_, sn) => peer.dataIn(request.tag, 0, sn, new Uint8Array()));
    const pdus = peer.dataOf(request).map((pdu, index) => (pdu.writeUInt32BE(5000 + index, 36), pdu));
    peer.send(...empty, ...pdus, peer.response(request.tag));
  },
  "a residual without its flag": (request, peer) =>
    peer.send(...peer.dataOf(request), peer.response(request.tag, 0, undefined, [[44, 4, 512]])),
  "a flag without a residual": (request, peer) =>
    peer.send(...peer.dataOf(request), peer.response(request.tag, 0, undefined, [[1, 1, 0x86]])),
  "sense data with GOOD": (request, peer) =>
    peer.send(...peer.dataOf(request), peer.response(request.tag, 0, fixedSense(3, 0x11, 0))),
  "a SCSI event as an asynchronous message": after((peer) =>
    peer.asyncMessage(0, Uint8Array.of(0, 2, 0x70, 0))
  ),
  "a vendor's asynchronous message": after((peer) => peer.asyncMessage(255, new Uint8Array(9000))),
  "an asynchronous message that is not defined": after((peer) => peer.asyncMessage(99)),
  "a ping with 200 KiB of data": after((peer) => peer.ping(5, new Uint8Array(200 << 10))),
  "a window that moves back, and one that contradicts itself": after((peer) =>
    Buffer.concat([
      peer.pdu(0x20, 0x80, [[16, 4, 0xffffffff], [20, 4, 0xffffffff], [28, 4, 0], [32, 4, 1]]),
      peer.pdu(0x20, 0x80, [[16, 4, 0xffffffff], [20, 4, 0xffffffff], [28, 4, 99], [32, 4, 5]]),
    ])
  ),
};

for (const [what, act] of Object.entries(harmless)) {
  test(`${what}: the reads are right, on the same connection`, async () => {
    await withSession({}, async (session, target) => {
      const other = new Session({ ...target.options, isidQualifier: 8 });
      await other.open();
      target.hook = onFirstRead(act);
      const reads = [checkRead(session, 3, 32), checkRead(session, 900, 8), checkRead(other, 1, 64)];
      await Promise.all(reads).finally(() => other.close());
      await checkRead(session, 3, 3);
      assert.is(target.peers.length, 2);
    });
  });
}

test.run();
