import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { isTgtError, TgtError } from "../../src/node-iscsi-target/errors.ts";
import { decodeReply, encodeNewAccount } from "../../src/node-iscsi-target/management-message.ts";

const test = suite("management-message");

test("encodeNewAccount: the header's fields and the payload", () => {
  const message = Buffer.from(encodeNewAccount("user", "a,secret,with,commas"));
  const payload = "user=user,password=a,secret,with,commas\0";
  assert.is(message.length, 120 + payload.length);
  assert.is(message.readInt32LE(0), 7, "mode account");
  assert.is(message.readInt32LE(4), 0, "op new");
  assert.is(message.toString("latin1", 8, 72), "iscsi".padEnd(64, "\0"));
  assert.is(message.readUInt32LE(72), message.length);
  assert.is(message.readInt32LE(76), -1, "no target");
  assert.is(message.readBigUInt64LE(80), 0n, "session");
  assert.is(message.readBigUInt64LE(88), 0xffffffffffffffffn, "no LUN");
  assert.ok(message.subarray(96, 120).equals(Buffer.alloc(24)), "cid, host, type, direction, pack, force");
  assert.is(message.toString("latin1", 120), payload);
});

function reply(error: number, text: string): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt32LE(error, 0);
  bytes.writeUInt32LE(8 + Buffer.byteLength(text), 4);
  return Buffer.concat([bytes, Buffer.from(text)]);
}

test("decodeReply: byte by byte, and with bytes to spare", () => {
  const bytes = reply(14, "text\0");
  for (let length = 0; length < bytes.length; length++) {
    assert.is(decodeReply(bytes.subarray(0, length)), undefined);
  }
  assert.equal(decodeReply(bytes), { error: 14, text: "text" });
  assert.equal(decodeReply(Buffer.concat([bytes, bytes])), { error: 14, text: "text" });
  assert.equal(decodeReply(reply(0, "")), { error: 0, text: "" });
});

test("decodeReply: a length that makes no sense", () => {
  for (const length of [0, 7, 0xffffffff]) {
    const bytes = Buffer.alloc(8);
    bytes.writeUInt32LE(length, 4);
    assert.throws(() => decodeReply(bytes), (error: unknown) => isTgtError(error, "badReply"));
  }
});

test("decodeReply: any bytes give a reply, nothing or a TgtError", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
    try {
      decodeReply(bytes);
    } catch (error) {
      if (!(error instanceof TgtError)) throw error;
    }
  }));
});

test.run();
