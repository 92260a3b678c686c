import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Handshake, type HandshakeOutcome } from "../../src/nbd-server/handshake.ts";
import { info, magic, option, optionReply, transmissionFlag } from "../../src/nbd-server/protocol.ts";
import { infoData, metaData, optionBytes, text, uint16, uint32 } from "./raw-client.ts";

const test = suite("Handshake");

const disk = {
  name: "disk",
  description: "a disk",
  sizeBytes: 2 ** 40 + 512,
  preferredBlockBytes: 4096,
  metaContexts: ["base:allocation", "dlsm:residency"],
};
const bothFlags = uint32(3);

interface Reply {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

/** Feeds `bytes` in the given chunks and splits the replies. */
function talk(chunks: readonly Uint8Array[]): { outcome: HandshakeOutcome; replies: Reply[]; raw: Buffer } {
  const handshake = new Handshake(disk);
  let outcome: HandshakeOutcome = { kind: "more" };
  const sent: Uint8Array[] = [];
  for (const chunk of chunks) {
    if (outcome.kind !== "more") break;
    const step = handshake.feed(chunk);
    sent.push(...step.replies);
    outcome = step.outcome;
  }
  const raw = Buffer.concat(sent);
  return { outcome, replies: split(raw), raw };
}

function split(raw: Buffer): Reply[] {
  const replies: Reply[] = [];
  for (let at = 0; at + 20 <= raw.length && raw.readBigUInt64BE(at) === magic.optionReply;) {
    const end = at + 20 + raw.readUInt32BE(at + 16);
    replies.push({
      option: raw.readUInt32BE(at + 8),
      type: raw.readUInt32BE(at + 12),
      data: raw.subarray(at + 20, end),
    });
    at = end;
  }
  return replies;
}

/** After the client's flags, these options. */
function options(...list: Uint8Array[]) {
  return talk([Buffer.concat([bothFlags, ...list])]);
}

const types = ({ replies }: { replies: Reply[] }) => replies.map(({ type }) => type);

const structured = optionBytes(option.structuredReply);
const ordinaryFlags = transmissionFlag.hasFlags | transmissionFlag.sendFlush | transmissionFlag.sendFua |
  transmissionFlag.sendTrim | transmissionFlag.sendWriteZeroes | transmissionFlag.canMultiConn |
  transmissionFlag.sendCache | transmissionFlag.sendFastZero;

test("greets as a fixed newstyle server that needs no zeroes", () => {
  const greeting = Buffer.from(new Handshake(disk).greeting());
  assert.is(greeting.toString("latin1", 0, 16), "NBDMAGICIHAVEOPT");
  assert.is(greeting.readUInt16BE(16), 3);
  assert.is(greeting.length, 18);
});

test("GO for the default export starts the transmission, with the rest of the bytes", () => {
  const { outcome, replies } = options(optionBytes(option.go, infoData("")), Buffer.from("rest"));
  assert.ok(outcome.kind === "transmission");
  assert.is(Buffer.from(outcome.rest).toString(), "rest");
  assert.equal(outcome.session, { structuredReplies: false, metaContexts: [] });
  assert.equal(replies.map(({ type }) => type), [optionReply.info, optionReply.ack]);
  assert.is(replies[0].data.readUInt16BE(0), info.export);
  assert.is(replies[0].data.readBigUInt64BE(2), 2n ** 40n + 512n);
  assert.is(replies[0].data.readUInt16BE(10), ordinaryFlags);
});

test("SEND_DF is offered only with structured replies", () => {
  const { replies } = options(structured, optionBytes(option.go, infoData("disk")));
  assert.is(replies[1].data.readUInt16BE(10), ordinaryFlags | transmissionFlag.sendDf);
});

test("INFO tells name, description and block sizes when asked, and goes on", () => {
  const asked = [info.name, info.description, info.blockSize, info.blockSize, 77];
  const { outcome, replies } = options(optionBytes(option.info, infoData("", asked)));
  assert.is(outcome.kind, "more");
  assert.equal(replies.map(({ type }) => type), [3, 3, 3, 3, optionReply.ack]);
  assert.is(replies[1].data.toString("latin1"), "\0\x01disk");
  assert.is(replies[2].data.toString("latin1"), "\0\x02a disk");
  assert.equal([...replies[3].data], [...uint16(3), ...uint32(1), ...uint32(4096), ...uint32(2 ** 25)]);
});

test("an unknown export is refused with ERR_UNKNOWN", () => {
  const all = options(
    structured,
    optionBytes(option.info, infoData("other")),
    optionBytes(option.go, infoData("DISK")),
    optionBytes(option.listMetaContext, metaData("other", [])),
    optionBytes(option.setMetaContext, metaData("other", ["base:allocation"])),
  );
  const { errorUnknown } = optionReply;
  assert.equal(types(all), [optionReply.ack, errorUnknown, errorUnknown, errorUnknown, errorUnknown]);
  assert.is(all.outcome.kind, "more");
});

test("LIST names the export and describes it", () => {
  const { replies } = options(optionBytes(option.list));
  assert.equal([...replies[0].data], [...text("disk"), ...Buffer.from("a disk")]);
  assert.is(replies[1].type, optionReply.ack);
});

test("EXPORT_NAME answers with size and flags, and with zeroes unless they are waived", () => {
  const request = optionBytes(option.exportName, Buffer.from("disk"));
  const short = options(request);
  assert.is(short.outcome.kind, "transmission");
  assert.is(short.raw.length, 10);
  assert.is(short.raw.readBigUInt64BE(0), 2n ** 40n + 512n);
  assert.is(short.raw.readUInt16BE(8), ordinaryFlags);
  const long = talk([Buffer.concat([uint32(1), optionBytes(option.exportName)])]);
  assert.is(long.raw.length, 134);
  assert.ok(long.raw.subarray(10).every((byte) => byte === 0));
});

test("EXPORT_NAME of an unknown or over-long name drops the connection", () => {
  assert.is(options(optionBytes(option.exportName, Buffer.from("x"))).outcome.kind, "drop");
  assert.is(options(optionBytes(option.exportName, Buffer.alloc(20_000))).outcome.kind, "drop");
});

test("ABORT is acknowledged, then closed", () => {
  const { outcome, replies } = options(optionBytes(option.abort, Buffer.from("ignored")));
  assert.is(outcome.kind, "close");
  assert.is(replies[0].type, optionReply.ack);
});

test("unknown options, STARTTLS and EXTENDED_HEADERS are ERR_UNSUP, and the next one is found", () => {
  const all = options(
    optionBytes(5),
    optionBytes(11),
    optionBytes(0xdeadbeef, Buffer.alloc(300)),
    optionBytes(99, Buffer.alloc(100_000)),
    optionBytes(option.list),
  );
  const { errorUnsupported, server, ack } = optionReply;
  assert.equal(types(all), [...Array(4).fill(errorUnsupported), server, ack]);
  assert.is(all.replies[2].option, 0xdeadbeef);
});

test("a known option that is too long is ERR_TOO_BIG; an absurd one drops the connection", () => {
  const long = options(optionBytes(option.info, Buffer.alloc(20_000)), optionBytes(option.list));
  assert.equal(types(long), [optionReply.errorTooBig, optionReply.server, optionReply.ack]);
  const header = optionBytes(option.info).subarray(0, 12);
  assert.is(options(header, uint32(0xffffffff)).outcome.kind, "drop");
});

test("malformed options are ERR_INVALID, and the next one is found", () => {
  const go = infoData("disk", [1]);
  const set = metaData("disk", ["base:allocation"]);
  const all = options(
    structured,
    optionBytes(option.list, Buffer.alloc(1)),
    optionBytes(option.structuredReply, Buffer.alloc(1)),
    optionBytes(option.go, go.subarray(0, go.length - 1)),
    optionBytes(option.go, Buffer.concat([go, Buffer.alloc(1)])),
    optionBytes(option.go, Buffer.concat([uint32(0xffffffff), Buffer.from("x")])),
    optionBytes(option.go),
    optionBytes(option.setMetaContext, set.subarray(0, set.length - 1)),
    optionBytes(option.setMetaContext, Buffer.concat([text("disk"), uint32(0xffffffff)])),
    optionBytes(option.listMetaContext, Buffer.concat([set, Buffer.alloc(3)])),
    optionBytes(option.go, infoData("x".repeat(4097))),
  );
  assert.equal(types(all), [optionReply.ack, ...Array(10).fill(optionReply.errorInvalid)]);
  assert.is(all.outcome.kind, "more");
});

/** Names in META_CONTEXT replies. */
const contextNames = ({ replies }: { replies: Reply[] }) =>
  replies.filter(({ type }) => type === optionReply.metaContext).map(({ data }) => data.toString("utf8", 4));

test("LIST_META_CONTEXT lists all, by namespace, or by name, with id 0", () => {
  const list = (...queries: string[]) =>
    options(structured, optionBytes(option.listMetaContext, metaData("", queries)));
  assert.equal(contextNames(list()), ["base:allocation", "dlsm:residency"]);
  assert.equal(contextNames(list("base:")), ["base:allocation"]);
  assert.equal(contextNames(list("dlsm:", "base:", "dlsm:residency")), ["base:allocation", "dlsm:residency"]);
  assert.equal(contextNames(list("dlsm:residency")), ["dlsm:residency"]);
  assert.equal(contextNames(list("qemu:", "base:other", "", "base", ":", "allocation")), []);
  assert.is(list("base:").replies[1].data.readUInt32BE(0), 0);
  assert.equal(types(list("x:y")), [optionReply.ack, optionReply.ack]);
});

test("SET_META_CONTEXT selects by full name only, once each, under distinct ids", () => {
  const go = optionBytes(option.go, infoData("disk"));
  const set = (...queries: string[]) => optionBytes(option.setMetaContext, metaData("", queries));
  const chosen = (...list: Uint8Array[]) => {
    const { outcome } = options(structured, ...list, go);
    assert.ok(outcome.kind === "transmission");
    return outcome.session.metaContexts;
  };
  const both = chosen(set("dlsm:residency", "base:allocation", "dlsm:residency"));
  assert.equal(both.map(({ name }) => name), ["base:allocation", "dlsm:residency"]);
  assert.is.not(both[0].id, both[1].id);
  assert.equal(chosen(set("base:", "dlsm:", "x:y")), []);
  assert.equal(chosen(set()), []);
  assert.equal(chosen(set("base:allocation"), set("dlsm:residency")).map(({ name }) => name), [
    "dlsm:residency",
  ]);
  // A failed SET forgets what was selected before.
  const failed = optionBytes(option.setMetaContext, metaData("other", ["base:allocation"]));
  assert.equal(chosen(set("base:allocation"), failed), []);
});

test("the ids of SET_META_CONTEXT's replies are those of the session", () => {
  const set = optionBytes(option.setMetaContext, metaData("", ["base:allocation", "dlsm:residency"]));
  const { replies, outcome } = options(structured, set, optionBytes(option.go, infoData("")));
  assert.ok(outcome.kind === "transmission");
  const answered = replies.filter(({ type }) => type === optionReply.metaContext)
    .map(({ data }) => ({ id: data.readUInt32BE(0), name: data.toString("utf8", 4) }));
  assert.equal(answered, [...outcome.session.metaContexts]);
});

test("meta contexts need structured replies first", () => {
  const all = options(
    optionBytes(option.setMetaContext, metaData("", ["base:allocation"])),
    optionBytes(option.listMetaContext, metaData("", [])),
  );
  assert.equal(types(all), [optionReply.errorInvalid, optionReply.errorInvalid]);
});

test("unknown client flags and a wrong option magic drop the connection", () => {
  assert.is(talk([uint32(4)]).outcome.kind, "drop");
  assert.is(talk([uint32(0x80000003)]).outcome.kind, "drop");
  assert.is(options(Buffer.from("IHAVEOPX\0\0\0\x03\0\0\0\0")).outcome.kind, "drop");
});

test("a flood of options ends with a drop", () => {
  const { outcome, replies } = options(...Array(5000).fill(optionBytes(option.list)));
  assert.is(outcome.kind, "drop");
  assert.is(replies.length, 512);
});

test("gives the same answers however the bytes are chopped", () => {
  const bytes = Buffer.concat([
    bothFlags,
    structured,
    optionBytes(99, Buffer.alloc(17_000)),
    optionBytes(option.setMetaContext, metaData("disk", ["base:allocation"])),
    optionBytes(option.info, infoData("disk", [1, 2, 3])),
    optionBytes(option.go, infoData("disk", [3])),
  ]);
  const whole = talk([bytes]);
  assert.is(whole.outcome.kind, "transmission");
  const single = talk([...bytes].map((byte) => Uint8Array.of(byte)));
  assert.equal(single.raw, whole.raw);
  assert.is(single.outcome.kind, "transmission");
  fc.assert(fc.property(fc.array(fc.nat({ max: bytes.length })), (cuts) => {
    const at = [...new Set([0, ...cuts, bytes.length])].sort((a, b) => a - b);
    const chunks = at.slice(1).map((end, index) => bytes.subarray(at[index], end));
    assert.equal(talk(chunks).raw, whole.raw);
  }));
});

test("survives garbage", () => {
  const anyOption = fc.tuple(fc.integer({ min: 0, max: 12 }), fc.uint8Array({ maxLength: 80 }))
    .map(([code, data]) => optionBytes(code, data));
  const garbage = fc.oneof(anyOption, fc.uint8Array({ maxLength: 40 }));
  fc.assert(fc.property(fc.array(garbage, { maxLength: 10 }), (parts) => {
    const { outcome } = options(...parts);
    assert.ok(["more", "close", "drop", "transmission"].includes(outcome.kind));
  }));
});

test.run();
