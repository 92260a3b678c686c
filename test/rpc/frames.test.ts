import { Buffer } from "node:buffer";
import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { encodeCbor } from "../../src/lib/cbor.ts";
import { RpcProtocolError } from "../../src/rpc/errors.ts";
import {
  type Banner,
  encodeBanner,
  encodeFrame,
  FrameDecoder,
  numericCapability,
} from "../../src/rpc/frames.ts";
import { decodeMessage, encodeMessage, errorToMessage, messageToError } from "../../src/rpc/messages.ts";

const limit = 1024;

function decode(chunks: Iterable<Uint8Array>) {
  const banners: Banner[] = [];
  const frames: string[] = [];
  const decoder = new FrameDecoder({
    onBanner: (banner) => banners.push(banner),
    onFrame: (payload) => frames.push(Buffer.from(payload).toString("hex")),
  }, limit);
  for (const chunk of chunks) decoder.push(chunk);
  return { banners, frames, decoder };
}

/** Cuts the bytes at the given places. */
function cut(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const at = [0, ...places.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return at.slice(1).map((end, index) => bytes.subarray(at[index], end));
}

const greeting = encodeBanner({ version: 1, capabilities: ["max-frame=1024", "x"] });

const test = suite("rpc: frames and messages");

test("encodeBanner() is a line that a person can read", () => {
  assert.is(Buffer.from(greeting).toString(), "dlsm-rpc 1 max-frame=1024 x\n");
  assert.throws(() => encodeBanner({ version: 1, capabilities: Array(200).fill("word") }), /one line/);
});

test("numericCapability() takes whole numbers of at least 1 and nothing else", () => {
  const capabilities = ["a=5", "b=0", "c=x", "d", "e=1.5", "f="];
  const values = ["a", "b", "c", "d", "e", "f", "g"].map((name) =>
    numericCapability({ version: 1, capabilities }, name)
  );
  assert.equal(values, [5, ...Array(6).fill(undefined)]);
});

test("FrameDecoder gives the same whatever the pieces are, single bytes included", () => {
  fc.assert(fc.property(
    fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { maxLength: 8 }),
    fc.array(fc.nat(), { maxLength: 10 }),
    (payloads, places) => {
      const bytes = Buffer.concat([greeting, ...payloads.map((payload) => encodeFrame(payload, limit))]);
      const expected = payloads.map((payload) => Buffer.from(payload).toString("hex"));
      for (const chunks of [cut(bytes, places), Array.from(bytes, (byte) => new Uint8Array([byte]))]) {
        const { banners, frames, decoder } = decode(chunks);
        assert.equal(banners, [{ version: 1, capabilities: ["max-frame=1024", "x"] }]);
        assert.equal(frames, expected);
        assert.ok(decoder.isBetweenFrames);
      }
    },
  ));
});

test("FrameDecoder gives payloads that are the receiver's own", () => {
  const chunk = Buffer.concat([greeting, encodeFrame(new Uint8Array([1, 2, 3]), limit)]);
  let seen: Uint8Array | undefined;
  new FrameDecoder({ onBanner: () => {}, onFrame: (payload) => (seen = payload) }).push(chunk);
  chunk.fill(0xff);
  assert.equal([...seen!], [1, 2, 3]);
});

test("FrameDecoder refuses lengths of zero and beyond the limit before any payload comes", () => {
  for (const length of [0, limit + 1, 2 ** 32 - 1]) {
    const header = Buffer.alloc(4);
    header.writeUInt32BE(length);
    assert.throws(
      () => decode([greeting, header]),
      (error: unknown) => error instanceof RpcProtocolError && error.message.includes(`${length} bytes`),
    );
  }
  assert.throws(() => encodeFrame(new Uint8Array(limit + 1), limit), /1025 bytes/);
});

test("FrameDecoder says what a stranger said, without its control characters", () => {
  const strangers = [
    "Welcome to host a\n",
    "HTTP/1.1 400 Bad Request\r\n",
    "dlsm-rpc x\n",
    "dlsm-rpc 1  two-spaces\n",
    "\x1b[31mred\n",
    "\n",
  ];
  for (const text of strangers) {
    for (const chunks of [[Buffer.from(text)], Array.from(Buffer.from(text), (byte) => Buffer.of(byte))]) {
      assert.throws(() => decode(chunks), (error: unknown) => {
        assert.instance(error, RpcProtocolError);
        const { message, hint } = error as RpcProtocolError;
        assert.match(message, JSON.stringify(text.trimEnd()));
        // deno-lint-ignore no-control-regex
        assert.not.match(message, /[\x00-\x1f]/);
        return hint!.includes("login script");
      });
    }
  }
});

test("FrameDecoder gives up on a first line that never ends", () => {
  assert.throws(() => decode([Buffer.alloc(511, "a"), Buffer.alloc(2, "a")]), /does not speak dlsm-rpc/);
  const late = Buffer.concat([Buffer.alloc(600, "a"), Buffer.from("\n")]);
  assert.throws(() => decode([late]), /does not speak dlsm-rpc/);
});

test("FrameDecoder survives any bytes: frames or RpcProtocolError", () => {
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 10 }),
      (isGreeted, chunks) => {
        try {
          decode(isGreeted ? [greeting, ...chunks] : chunks);
        } catch (error) {
          assert.instance(error, RpcProtocolError);
        }
      },
    ),
    { numRuns: 1000 },
  );
});

test("decodeMessage() survives any bytes and any plain value: a message or RpcProtocolError", () => {
  const check = (payload: Uint8Array) => {
    try {
      assert.type(decodeMessage(payload).type, "string");
    } catch (error) {
      assert.instance(error, RpcProtocolError);
    }
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), check), { numRuns: 2000 });
  const field = fc.oneof(fc.integer(), fc.string(), fc.constant(null), fc.double());
  const almost = fc.record({
    type: fc.constantFrom("call", "cancel", "progress", "result", "error", "beat", "other"),
    id: field,
    method: field,
    kind: field,
    message: field,
    hint: field,
    timeoutMs: field,
  }, { requiredKeys: [] });
  fc.assert(fc.property(almost, (value) => check(encodeCbor(value))), { numRuns: 2000 });
});

test("decodeMessage() refuses what only looks like a message", () => {
  const wrong: unknown[] = [
    null,
    [],
    "call",
    { type: "call", id: 1 },
    { type: "call", id: -1, method: "m" },
    { type: "call", id: 1.5, method: "m" },
    { type: "call", id: 1, method: "m", timeoutMs: 0 },
    { type: "call", id: 1, method: "m", timeoutMs: NaN },
    { type: "error", id: 1, kind: "FailedError" },
    { type: "error", id: 1, kind: "FailedError", message: "m", hint: 5 },
    { type: "result" },
    { id: 1 },
  ];
  for (const value of wrong) {
    assert.throws(() => decodeMessage(encodeCbor(value)), /makes no sense/, JSON.stringify(value));
  }
  const call = { type: "call", id: 0, method: "m", params: { a: 1 }, timeoutMs: 5 } as const;
  assert.equal(decodeMessage(encodeMessage(call)), call);
});

test("an error of an unknown kind, as from a newer version, is still an error", () => {
  for (const kind of ["FutureError", "constructor", "__proto__"]) {
    const error = messageToError({ type: "error", id: 1, kind, message: "m" });
    assert.is(error.constructor.name, "RemoteError");
    assert.is(error.message, "m");
  }
  assert.is(errorToMessage(3, undefined).message, "undefined");
});

test.run();
