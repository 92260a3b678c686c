/** What the other side of a conversation sends: frames, CBOR, messages. */
import fc from "fast-check";
import { decodeCbor, encodeCbor, problemOfCbor } from "../../src/lib/cbor.ts";
import { DlsmError } from "../../src/lib/errors.ts";
import { RpcProtocolError } from "../../src/rpc/errors.ts";
import {
  type Banner,
  encodeBanner,
  encodeFrame,
  FrameDecoder,
  maxBannerBytes,
} from "../../src/rpc/frames.ts";
import { decodeMessage, encodeMessage, type Message, messageToError } from "../../src/rpc/messages.ts";
import * as assert from "uvu/assert";
import { attempt, same } from "./expect.ts";
import { cuts, joined, type Mutated, mutated, segmentations } from "./mutation.ts";
import { type Target, target } from "./target.ts";
import { plainValue, reshaped, type Reshaping, reshapings } from "./values.ts";

const maxFrameBytes = 100;

interface Conversation {
  readonly banner: Banner;
  readonly payloads: readonly Uint8Array[];
}

const word = fc.constantFrom("max-calls=32", "max-frame=100", "x", "!", "~=~");
const conversation: fc.Arbitrary<Conversation> = fc.record({
  banner: fc.record({ version: fc.nat(999_999_999), capabilities: fc.array(word, { maxLength: 4 }) }),
  // Rarely more than is allowed.
  payloads: fc.array(
    fc.oneof(
      { weight: 12, arbitrary: fc.uint8Array({ minLength: 1, maxLength: maxFrameBytes }) },
      { weight: 1, arbitrary: fc.uint8Array({ minLength: maxFrameBytes, maxLength: maxFrameBytes + 2 }) },
    ),
    { maxLength: 4 },
  ),
});

const encodeConversation = ({ banner, payloads }: Conversation) =>
  joined(encodeBanner(banner), ...payloads.map((payload) => encodeFrame(payload, 2 * maxFrameBytes)));

function decode(pieces: readonly Uint8Array[]) {
  const banners: Banner[] = [];
  const frames: Uint8Array[] = [];
  const events = {
    onBanner: (banner: Banner) => banners.push(banner),
    onFrame: (frame: Uint8Array) => frames.push(frame),
  };
  const decoder = new FrameDecoder(events, maxFrameBytes);
  const { error } = attempt([RpcProtocolError], () => pieces.forEach((piece) => decoder.push(piece)));
  return { banners, frames, isRefused: error !== undefined };
}

/** The same out of a stream that is there as a whole. */
function reference(bytes: Uint8Array): ReturnType<typeof decode> {
  const lineEnd = bytes.indexOf(10);
  const frames: Uint8Array[] = [];
  if (lineEnd === -1 || lineEnd >= maxBannerBytes) {
    return { banners: [], frames, isRefused: bytes.length >= maxBannerBytes };
  }
  const line = new TextDecoder().decode(bytes.subarray(0, lineEnd));
  const [protocol, version = "", ...capabilities] = line.split(" ");
  const isBanner = protocol === "dlsm-rpc" && /^[0-9]{1,9}$/.test(version) &&
    capabilities.every((each) => /^[!-~]+$/.test(each));
  if (!isBanner) return { banners: [], frames, isRefused: true };
  const banners = [{ version: Number(version), capabilities }];
  for (let at = lineEnd + 1; at + 4 <= bytes.length;) {
    const length = new DataView(bytes.buffer, bytes.byteOffset + at).getUint32(0);
    if (length === 0 || length > maxFrameBytes) return { banners, frames, isRefused: true };
    if (at + 4 + length > bytes.length) break;
    frames.push(bytes.slice(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return { banners, frames, isRefused: false };
}

const frames = target<{ stream: Mutated<Conversation>; places: number[] }>({
  name: "rpc-frames",
  inputs: fc.record({
    stream: mutated(conversation, encodeConversation, {
      words: ["\n", " ", "dlsm-rpc 1\n", "a".repeat(600)],
    }),
    places: cuts,
  }),
  runs: 1500,
  check({ stream: { bytes }, places }) {
    const expected = reference(bytes);
    for (const pieces of segmentations(bytes, places)) same(decode(pieces), expected, "frames");
    return expected.isRefused ? "refused" : "accepted";
  },
});

const cbor = target<Mutated<unknown>>({
  name: "cbor",
  inputs: mutated(plainValue, encodeCbor),
  runs: 2500,
  check({ bytes, value, isDamaged }) {
    const { value: found, error } = attempt([TypeError], () => decodeCbor(bytes));
    assert.is(problemOfCbor(bytes) === undefined, error === undefined);
    if (error !== undefined) {
      assert.ok(
        error.message.startsWith("not plain CBOR data: "),
        `a TypeError by accident: ${error.message}`,
      );
      assert.ok(isDamaged, "honest data is refused");
      return "refused";
    }
    if (!isDamaged) same(found, value, "the value");
    checkPlain(found, bytes.length);
    same(decodeCbor(encodeCbor(found)), found, "written again");
    return "accepted";
  },
});

/** Only plain data, no larger than its encoding, and with no prototype of a stranger's choice. */
function checkPlain(value: unknown, budget: number): number {
  if (budget < 0) throw new Error("more values than bytes");
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return budget - 1;
  const prototype = Object.getPrototypeOf(value);
  assert.ok(prototype === Array.prototype || prototype === Object.prototype, "an object of another class");
  return Object.values(value).reduce((left: number, each) => checkPlain(each, left), budget - 1);
}

const id = fc.oneof(fc.constant(0), fc.nat(1000));
const text = fc.string({ maxLength: 30 });
const message: fc.Arbitrary<Message> = fc.oneof(
  fc.record({ type: fc.constant("call" as const), id, method: text, params: plainValue }),
  fc.record({
    type: fc.constant("call" as const),
    id,
    method: text,
    params: plainValue,
    timeoutMs: fc.integer({ min: 1 }),
  }),
  fc.record({ type: fc.constantFrom("progress" as const, "result" as const), id, value: plainValue }),
  fc.record({ type: fc.constant("cancel" as const), id }),
  fc.record({
    type: fc.constant("error" as const),
    id,
    kind: fc.constantFrom("FailedError", "timeout", "internal", "constructor", "__proto__", "toString"),
    message: text,
    hint: text,
  }),
  fc.constant({ type: "beat" as const }),
);

const messages = target<{ message: Message; changes: Reshaping[]; damage: Mutated<Message> }>({
  name: "rpc-messages",
  inputs: fc.record({ message, changes: reshapings, damage: mutated(message, encodeMessage) }),
  runs: 1500,
  check({ message, changes, damage: { bytes } }) {
    const given = reshaped(message, changes);
    const verdict = receive(encodeCbor(given), changes.length === 0 ? message : undefined);
    receive(bytes, undefined);
    return verdict;
  },
});

function receive(bytes: Uint8Array, expected: Message | undefined): "accepted" | "refused" {
  const { value: found } = attempt([RpcProtocolError], () => decodeMessage(bytes));
  if (expected !== undefined) same(found, expected, "the message");
  if (found === undefined) return "refused";
  same(decodeMessage(encodeMessage(found)), found, "written again");
  if (found.type === "error") {
    const error = messageToError(found);
    assert.instance(error, DlsmError);
    assert.is(error.message, found.message);
  }
  if (found.type === "call") assert.ok(found.timeoutMs === undefined || found.timeoutMs > 0);
  if (found.type !== "beat") assert.ok(Number.isSafeInteger(found.id) && found.id >= 0);
  return "accepted";
}

export const rpcTargets: readonly Target[] = [frames, cbor, messages];
