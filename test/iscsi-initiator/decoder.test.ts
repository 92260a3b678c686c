/** The decoder and the login machine, with streams in pieces of any size, and with hostile ones. */
import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { crc32c } from "../../src/iscsi-initiator/crc32c.ts";
import { PduDecoder } from "../../src/iscsi-initiator/decoder.ts";
import { DigestError, IscsiError, LoginError, ProtocolError } from "../../src/iscsi-initiator/errors.ts";
import { LoginNegotiation, type LoginResponse, type LoginStep } from "../../src/iscsi-initiator/login.ts";
import { chapResponse } from "../../src/iscsi-initiator/chap.ts";
import { buildNopOut, buildScsiCommand } from "../../src/iscsi-initiator/pdu.ts";
import { encodeBinary, encodeText, parseBinary, parseText } from "../../src/iscsi-initiator/text.ts";

const test = suite("decoder and login");

interface WirePdu {
  readonly additionalWords: number;
  readonly data: Uint8Array;
}

const wirePdus = fc.array(
  fc.record({ additionalWords: fc.nat(5), data: fc.uint8Array({ maxLength: 50 }) }),
  { minLength: 1, maxLength: 6 },
);
const anyDigests = fc.record({ header: fc.boolean(), data: fc.boolean() });

function encode(pdus: readonly WirePdu[], digests: { header: boolean; data: boolean }): Uint8Array {
  const parts: Uint8Array[] = [];
  const digest = (bytes: Uint8Array) => {
    const le = Buffer.alloc(4);
    le.writeUInt32LE(crc32c(bytes));
    parts.push(le);
  };
  for (const [i, { additionalWords, data }] of pdus.entries()) {
    const header = Buffer.alloc(48 + 4 * additionalWords, 0x5a);
    header[0] = 0x25;
    header[4] = additionalWords;
    header.writeUIntBE(data.length, 5, 3);
    header.writeUInt32BE(i, 16);
    parts.push(header);
    if (digests.header) digest(header);
    const padded = Buffer.alloc(data.length + 3 & ~3);
    padded.set(data);
    parts.push(padded);
    if (digests.data && data.length > 0) digest(padded);
  }
  return Buffer.concat(parts);
}

/** Pushes `stream` in pieces of the given sizes, over and over. */
function decode(stream: Uint8Array, digests: { header: boolean; data: boolean }, sizes: number[]) {
  const found: { tag: number; data: string }[] = [];
  const places: Uint8Array[] = [];
  const pdus = new PduDecoder({
    // By turns a buffer of the caller, a new one, and none.
    onHeader(header) {
      if (header.tag % 3 === 0) return (places[header.tag] = new Uint8Array(header.dataBytes));
      return header.tag % 3 === 1 ? undefined : "skip";
    },
    onPdu(header, data) {
      if (header.tag % 3 === 0 && header.dataBytes > 0) assert.is(data, places[header.tag]);
      found.push({ tag: header.tag, data: Buffer.from(data).toString("hex") });
    },
  }, 50);
  pdus.configure(digests, 50);
  for (let at = 0, i = 0; at < stream.length; i++) {
    const size = sizes[i % sizes.length];
    pdus.push(stream.subarray(at, at + size));
    at += size;
  }
  return found;
}

test("decoder: PDUs come out the same whatever the pieces, byte by byte too", () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 70 }), { minLength: 1, maxLength: 9 });
  fc.assert(fc.property(wirePdus, anyDigests, sizes, (pdus, digests, pieces) => {
    const expected = pdus.map(({ data }, tag) => ({
      tag,
      data: tag % 3 === 2 ? "" : Buffer.from(data).toString("hex"),
    }));
    const stream = encode(pdus, digests);
    assert.equal(decode(stream, digests, pieces), expected);
    assert.equal(decode(stream, digests, [1]), expected);
    assert.equal(decode(stream, digests, [1 << 20]), expected);
  }));
});

test("decoder: with digests any damaged bit is found", () => {
  fc.assert(fc.property(wirePdus, fc.nat(), fc.nat(7), (pdus, position, bit) => {
    const digests = { header: true, data: true };
    const stream = encode(pdus, digests);
    stream[position % stream.length] ^= 1 << bit;
    let complete = 0;
    try {
      complete = decode(stream, digests, [16]).length;
    } catch (error) {
      assert.ok(error instanceof DigestError || error instanceof ProtocolError);
      return;
    }
    // A longer additional segment than the stream has left: still waiting, but nothing wrong came out.
    assert.ok(complete < pdus.length);
  }));
});

test("decoder: any bytes at all: events or a ProtocolError, in bounded memory", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 3000 }), anyDigests, (bytes, digests) => {
    try {
      decode(bytes, digests, [7]);
    } catch (error) {
      assert.instance(error, ProtocolError);
    }
  }));
});

test("decoder: a data segment over the limit is refused before it is stored", () => {
  const oversize = encode([{ additionalWords: 0, data: new Uint8Array(51) }], { header: false, data: false });
  assert.throws(() => decode(oversize.subarray(0, 48), { header: false, data: false }, [48]), /51 bytes/);
});

test("decoder: stop in the middle of a chunk: nothing more is stored or called", () => {
  const none = { header: false, data: false };
  const stream = encode(
    [1, 2].map((fill) => ({ additionalWords: 0, data: new Uint8Array(8).fill(fill) })),
    none,
  );
  const place = new Uint8Array(8);
  let calls = 0;
  const pdus: PduDecoder = new PduDecoder({
    onHeader: () => place,
    onPdu() {
      calls++;
      pdus.stop();
    },
  }, 50);
  pdus.push(stream);
  pdus.push(stream);
  assert.is(calls, 1);
  assert.equal([...place], Array(8).fill(1));
});

test("decoder: skipData in the middle of a segment: the rest is not stored, the next PDU is in step", () => {
  const none = { header: false, data: false };
  const stream = encode(
    [1, 2].map((fill) => ({ additionalWords: 0, data: new Uint8Array(8).fill(fill) })),
    none,
  );
  const places = [new Uint8Array(8), new Uint8Array(8)];
  const pdus = new PduDecoder({ onHeader: (header) => places[header.tag], onPdu() {} }, 50);
  pdus.push(stream.subarray(0, 52));
  pdus.skipData();
  pdus.push(stream.subarray(52));
  assert.equal([...places[0]], [1, 1, 1, 1, 0, 0, 0, 0]);
  assert.equal([...places[1]], Array(8).fill(2));
});

test("decoder: built PDUs: fields where RFC 7143 has them", () => {
  const lun = Uint8Array.of(0, 1, 0, 0, 0, 0, 0, 0);
  const cdb = new Uint8Array(16).fill(0xcd);
  const numbers = { cmdSN: 0x01020304, expStatSN: 0x05060708 };
  const command = buildScsiCommand(9, lun, cdb, 4096, numbers, { header: false, data: false });
  const expected = "01c1000000000000" + "0001000000000000" + "00000009" + "00001000" + "01020304" +
    "05060708" +
    "cd".repeat(16);
  assert.is(Buffer.from(command).toString("hex"), expected);
  const ping = buildNopOut(5, 0xffffffff, new Uint8Array(8), numbers, { header: true, data: true });
  assert.is(ping.length, 52);
  assert.is(Buffer.from(ping).readUInt32LE(48), crc32c(ping.subarray(0, 48)));
});

const wishes = {
  initiatorName: "iqn.2026-01.test:i",
  targetName: "iqn.2026-01.test:t",
  headerDigest: true,
  dataDigest: false,
  maxRecvDataSegmentLength: 262144,
};

function response(
  stage: number,
  transit: boolean,
  text: string,
  more: Partial<LoginResponse> = {},
): LoginResponse {
  return {
    stage,
    nextStage: stage === 0 ? 1 : 3,
    transit,
    continues: false,
    statusClass: 0,
    statusDetail: 0,
    text: Buffer.from(text),
    ...more,
  };
}

function sent(step: LoginStep): Map<string, string> {
  if (step.kind !== "send") throw new Error(`expected a request, not ${step.kind}`);
  return parseText(step.request.text);
}

/** A login without authentication, up to the operational offers. */
function atOperational(change: Partial<typeof wishes> = {}): LoginNegotiation {
  const negotiation = new LoginNegotiation({ ...wishes, ...change });
  negotiation.start();
  const offers = sent(negotiation.receive(response(0, true, "AuthMethod=None\0TargetPortalGroupTag=1\0")));
  assert.is(offers.get("HeaderDigest"), "CRC32C,None");
  assert.is(offers.get("ErrorRecoveryLevel"), "0");
  return negotiation;
}

test("login: without authentication: one round of each stage", () => {
  const step = atOperational().receive(response(
    1,
    true,
    "HeaderDigest=CRC32C\0DataDigest=None\0MaxRecvDataSegmentLength=0x2000\0MaxBurstLength=0x10000\0",
  ));
  assert.equal(step, {
    kind: "done",
    terms: { headerDigest: true, dataDigest: false },
  });
});

test("login: keys that are not answered have their defaults", () => {
  const step = atOperational().receive(response(1, true, ""));
  assert.equal(step, {
    kind: "done",
    terms: { headerDigest: false, dataDigest: false },
  });
});

test("login: answers that the offer does not allow are refused", () => {
  const answers = [
    "HeaderDigest=MD5",
    "HeaderDigest=CRC32C,None",
    "DataDigest=CRC32C",
    "MaxConnections=2",
    "MaxBurstLength=511",
    "MaxBurstLength=300000",
    "DefaultTime2Wait=1",
    "ErrorRecoveryLevel=1",
    "ErrorRecoveryLevel=x",
    "DataPDUInOrder=No",
    "DataSequenceInOrder=No",
    "InitialR2T=No",
    "ImmediateData=Yes",
    "ImmediateData=maybe",
    "MaxRecvDataSegmentLength=5",
    "HeaderDigest=Reject",
  ];
  for (const answer of answers) {
    assert.throws(
      () => atOperational().receive(response(1, true, `${answer}\0`)),
      (error: unknown) => error instanceof ProtocolError || error instanceof LoginError,
      answer,
    );
  }
});

test("login: answers that an offer allows are taken", () => {
  const answers = [
    "MaxBurstLength=0x4000",
    "DefaultTime2Wait=20",
    "FirstBurstLength=512",
    "MaxConnections=1",
  ];
  for (const answer of [...answers, "FirstBurstLength=Irrelevant", "HeaderDigest=None"]) {
    assert.is(atOperational().receive(response(1, true, `${answer}\0`)).kind, "done", answer);
  }
});

test("login: keys that the target begins with are answered, unknown ones with NotUnderstood", () => {
  const negotiation = new LoginNegotiation(wishes);
  negotiation.start();
  const text = "AuthMethod=None\0MaxBurstLength=1000\0X-what=1\0";
  const offers = sent(negotiation.receive(response(0, true, text)));
  assert.is(offers.get("X-what"), "NotUnderstood");
  assert.is(offers.get("MaxBurstLength"), "1000");
});

test("login: a key twice, or one to answer in the last response, is refused", () => {
  const negotiation = atOperational();
  sent(negotiation.receive(response(1, false, "MaxBurstLength=512\0")));
  assert.throws(() => negotiation.receive(response(1, true, "MaxBurstLength=512\0")), /twice/);
});

const chap = { user: "me", secret: "my-secret-word", target: { user: "it", secret: "its-secret-word" } };

function chapLogin(): { negotiation: LoginNegotiation; proof: Map<string, string> } {
  const negotiation = new LoginNegotiation({ ...wishes, chap });
  assert.is(parseText(negotiation.start().text).get("AuthMethod"), "CHAP");
  assert.equal(
    sent(negotiation.receive(response(0, false, "AuthMethod=CHAP\0"))),
    new Map([["CHAP_A", "8,6,5"]]),
  );
  const challenge = "CHAP_A=6\0CHAP_I=7\0CHAP_C=0x0102\0";
  return { negotiation, proof: sent(negotiation.receive(response(0, false, challenge))) };
}

test("login: mutual CHAP goes on to the operational stage only after the target's proof", () => {
  const { negotiation, proof } = chapLogin();
  assert.is(
    proof.get("CHAP_R"),
    encodeBinary(chapResponse("sha1", 7, "my-secret-word", Uint8Array.of(1, 2))),
  );
  const own = parseBinary(proof.get("CHAP_C")!, 1024)!;
  const right = encodeBinary(chapResponse("sha1", Number(proof.get("CHAP_I")), "its-secret-word", own));
  const text = Buffer.from(encodeText([["CHAP_N", "it"], ["CHAP_R", right]])).toString();
  assert.ok(sent(negotiation.receive(response(0, true, text))).has("MaxRecvDataSegmentLength"));
});

test("login: a target without proof, without CHAP, or that skips it is refused", () => {
  for (const text of ["", "CHAP_N=it\0CHAP_R=0x00\0", "CHAP_N=it\0"]) {
    assert.throws(() => chapLogin().negotiation.receive(response(0, true, text)), /could not prove/);
  }
  for (
    const [text, transit] of [["AuthMethod=None\0", false], ["", false], ["AuthMethod=None\0", true]] as const
  ) {
    const negotiation = new LoginNegotiation({ ...wishes, chap });
    negotiation.start();
    assert.throws(() => negotiation.receive(response(0, transit, text)));
  }
});

test("login: text longer than a PDU leaves in pieces with C, each after an empty answer", () => {
  const negotiation = new LoginNegotiation({ ...wishes, targetName: "t".repeat(20000) });
  let request = negotiation.start();
  let text = Buffer.from(request.text).toString();
  while (request.continues) {
    assert.is(request.transit, false);
    const step = negotiation.receive(response(0, false, ""));
    if (step.kind !== "send") throw new Error("expected more text");
    request = step.request;
    text += Buffer.from(request.text).toString();
  }
  assert.ok(request.transit);
  assert.is(parseText(Buffer.from(text)).get("TargetName")!.length, 20000);
});

test("login: any responses at all: an end within bounded rounds, by result or typed error", () => {
  const texts = fc.oneof(
    fc.constantFrom("", "AuthMethod=None\0", "AuthMethod=CHAP\0", "CHAP_A=5\0CHAP_I=1\0CHAP_C=0x01\0"),
    fc.constantFrom("HeaderDigest=None\0", "MaxBurstLength=512\0", "X-a=1\0", "CHAP_N=a\0CHAP_R=0x00\0"),
    fc.string({ maxLength: 40 }),
  );
  const responses = fc.infiniteStream(fc.record({
    stage: fc.constantFrom(0, 0, 1, 1, 3),
    nextStage: fc.constantFrom(1, 3, 3),
    transit: fc.boolean(),
    continues: fc.boolean(),
    statusClass: fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 9),
    statusDetail: fc.nat(255),
    text: texts.map((text) => Buffer.from(text)),
  }));
  fc.assert(
    fc.property(responses, fc.boolean(), (stream, withChap) => {
      const negotiation = new LoginNegotiation(withChap ? { ...wishes, chap } : wishes);
      negotiation.start();
      for (let rounds = 0; rounds < 40; rounds++) {
        try {
          if (negotiation.receive(stream.next().value!).kind !== "send") return;
        } catch (error) {
          assert.instance(error, IscsiError);
          return;
        }
      }
      throw new Error("it goes on for ever");
    }),
    { numRuns: 1000 },
  );
});

test.run();
