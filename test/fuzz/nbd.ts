/** What an NBD client sends: the handshake, the data of its options, its requests. */
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { BufferPool } from "../../src/lib/buffer-pool.ts";
import { type ExportDescription, Handshake } from "../../src/nbd-server/handshake.ts";
import { parseInfoRequest, parseMetaContextRequest } from "../../src/nbd-server/option-data.ts";
import { command, magic, maxPayloadBytes, NbdProtocolError, option } from "../../src/nbd-server/protocol.ts";
import { type Admission, type Request, RequestDecoder } from "../../src/nbd-server/request-decoder.ts";
import { refusalOf } from "../../src/nbd-server/validation.ts";
import * as assert from "uvu/assert";
import { attempt, same } from "./expect.ts";
import { cuts, joined, type Mutated, mutated, segmentations } from "./mutation.ts";
import { type Target, target } from "./target.ts";

const uint = (value: number | bigint, bytes: number) => {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64BE(BigInt(value));
  return buffer.subarray(8 - bytes);
};
const string = (text: string) => joined(uint(Buffer.byteLength(text), 4), Buffer.from(text));

const description: ExportDescription = {
  name: "disk",
  description: "a disk",
  sizeBytes: 1 << 20,
  preferredBlockBytes: 4096,
  metaContexts: ["base:allocation", "dlsm:residency"],
};

const name = fc.constantFrom("", "disk", "other", "dísk");
const query = fc.constantFrom("base:", "base:allocation", "dlsm:residency", "dlsm:", "", "qemu:dirty");

interface Info {
  readonly exportName: string;
  readonly types: readonly number[];
}

interface Meta {
  readonly exportName: string;
  readonly queries: readonly string[];
}

const infoRequest: fc.Arbitrary<Info> = fc.record({
  exportName: name,
  types: fc.array(fc.nat(5), { maxLength: 5 }),
});
const metaRequest: fc.Arbitrary<Meta> = fc.record({
  exportName: name,
  queries: fc.array(query, { maxLength: 4 }),
});
const encodeInfo = ({ exportName, types }: Info) =>
  joined(string(exportName), uint(types.length, 2), ...types.map((type) => uint(type, 2)));
const encodeMeta = ({ exportName, queries }: Meta) =>
  joined(string(exportName), uint(queries.length, 4), ...queries.map(string));

const infoOption = target<Mutated<Info>>({
  name: "nbd-info-option",
  inputs: mutated(infoRequest, encodeInfo),
  runs: 3000,
  check({ bytes, value, isDamaged }) {
    const found = parseInfoRequest(bytes);
    if (!isDamaged) same(found, { ...value, types: new Set(value.types) }, "the option");
    if (found === undefined) return "refused";
    // All of it was used, and nothing made up.
    const nameBytes = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
    const typesAt = 4 + nameBytes;
    const count = (bytes.length - typesAt - 2) / 2;
    assert.ok(Number.isInteger(count) && count >= 0 && nameBytes <= 4096);
    const types = Array.from(
      { length: count },
      (_, index) => Buffer.from(bytes).readUInt16BE(typesAt + 2 + 2 * index),
    );
    same(found.types, new Set(types), "types");
    return "accepted";
  },
});

const metaOption = target<Mutated<Meta>>({
  name: "nbd-meta-option",
  inputs: mutated(metaRequest, encodeMeta),
  runs: 3000,
  check({ bytes, value, isDamaged }) {
    const found = parseMetaContextRequest(bytes);
    if (!isDamaged) same(found, value, "the option");
    if (found === undefined) return "refused";
    const textBytes = bytes.length - 8 - 4 * found.queries.length;
    assert.ok(textBytes >= 0, "more queries than fit");
    assert.is(
      new DataView(bytes.buffer, bytes.byteOffset).getUint32(4 + nameLength(bytes)),
      found.queries.length,
    );
    return "accepted";
  },
});

const nameLength = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);

// --- the handshake ---

interface Option {
  readonly code: number;
  readonly data: Uint8Array;
}

interface Opening {
  readonly flags: number;
  readonly options: readonly Option[];
  /** The first bytes of the transmission phase. */
  readonly rest: Uint8Array;
}

const anyOption: fc.Arbitrary<Option> = fc.oneof(
  fc.record({ code: fc.constantFrom(option.info, option.go), data: infoRequest.map(encodeInfo) }),
  fc.record({
    code: fc.constantFrom(option.listMetaContext, option.setMetaContext),
    data: metaRequest.map(encodeMeta),
  }),
  fc.record({
    code: fc.constantFrom(option.structuredReply, option.list),
    data: fc.constant(new Uint8Array()),
  }),
  fc.record({
    code: fc.constantFrom(option.exportName),
    data: name.map((text) => new Uint8Array(Buffer.from(text))),
  }),
  fc.record({ code: fc.nat(12), data: fc.uint8Array({ maxLength: 20 }) }),
);

const opening: fc.Arbitrary<Opening> = fc.record({
  flags: fc.nat(3),
  options: fc.array(anyOption, { maxLength: 6 }),
  rest: fc.uint8Array({ maxLength: 12 }),
});

function encodeOpening({ flags, options, rest }: Opening): Uint8Array {
  const all = options.map(({ code, data }) =>
    joined(uint(magic.option, 8), uint(code, 4), uint(data.length, 4), data)
  );
  return joined(uint(flags, 4), ...all, rest);
}

/** What a client is told, and how it ends; `rest` with what was not fed any more. */
function shakeHands(pieces: readonly Uint8Array[]) {
  const handshake = new Handshake(description);
  const replies: Uint8Array[] = [];
  for (const [index, piece] of pieces.entries()) {
    const step = handshake.feed(piece);
    replies.push(...step.replies);
    const { outcome } = step;
    if (outcome.kind === "more") continue;
    const unread = pieces.slice(index + 1);
    if (outcome.kind !== "transmission") return { replies: joined(...replies), outcome };
    const rest = joined(outcome.rest, ...unread);
    return { replies: joined(...replies), outcome: { ...outcome, rest } };
  }
  return { replies: joined(...replies), outcome: { kind: "more" as const } };
}

/** Every reply is well-formed and answers an option that was sent. */
function checkReplies(replies: Uint8Array, endsByName: boolean): void {
  const buffer = Buffer.from(replies.buffer, replies.byteOffset, replies.byteLength);
  for (let at = 0; at < buffer.length;) {
    if (endsByName && (buffer.length - at === 10 || buffer.length - at === 134)) return;
    assert.is(buffer.readBigUInt64BE(at), magic.optionReply, "a reply without its magic number");
    at += 20 + buffer.readUInt32BE(at + 16);
    assert.ok(at <= buffer.length, "a reply that is longer than itself");
  }
}

const handshake = target<{ opening: Mutated<Opening>; places: number[] }>({
  name: "nbd-handshake",
  inputs: fc.record({ opening: mutated(opening, encodeOpening), places: cuts }),
  runs: 1000,
  check({ opening: { bytes }, places }) {
    const [whole, ...others] = segmentations(bytes, places).map(shakeHands);
    for (const other of others) same(other, whole, "the handshake, cut otherwise");
    const { outcome, replies } = whole!;
    checkReplies(replies, outcome.kind === "transmission");
    if (outcome.kind === "transmission") {
      const { metaContexts, structuredReplies } = outcome.session;
      assert.ok(metaContexts.length === 0 || structuredReplies, "a context without structured replies");
      for (const { id, name } of metaContexts) assert.is(description.metaContexts[id - 1], name);
      assert.ok(outcome.rest.length <= bytes.length - 20);
    }
    return outcome.kind === "drop" ? "refused" : "accepted";
  },
});

// --- requests ---

type Sent = Omit<Request, "wholeLength" | "isFirst" | "isLast">;

const sent: fc.Arbitrary<Sent> = fc.record({
  flags: fc.oneof(fc.constant(0), fc.nat(31), fc.nat(0xffff)),
  type: fc.oneof(fc.nat(8), fc.nat(0xffff)),
  cookieHigh: fc.nat(0xffffffff),
  cookieLow: fc.nat(0xffffffff),
  offset: fc.oneof(fc.nat(1 << 21), fc.maxSafeNat()),
  length: fc.oneof(fc.nat(5000), fc.nat(0xffffffff)),
  payload: fc.uint8Array({ maxLength: 200 }),
}).map((request) =>
  request.type === command.write
    ? { ...request, length: request.payload.length }
    : { ...request, payload: new Uint8Array() }
);

const encodeRequest = ({ flags, type, cookieHigh, cookieLow, offset, length, payload }: Sent) =>
  joined(
    uint(magic.request, 4),
    uint(flags, 2),
    uint(type, 2),
    uint(cookieHigh, 4),
    uint(cookieLow, 4),
    uint(offset, 8),
    uint(length, 4),
    payload,
  );

/** By turns all is taken, drained, or taken at the second time of asking. */
function decode(pieces: readonly Uint8Array[], maxBytes: number) {
  const decoder = new RequestDecoder(new BufferPool(0));
  const requests: Request[] = [];
  let asked: Request | undefined;
  const admit = (request: Request): Admission => {
    if (request.length > maxBytes) return "drain";
    if (request.cookieLow % 2 === 0 || asked === request) return "take";
    asked = request;
    return "wait";
  };
  const { error } = attempt([NbdProtocolError], () => {
    for (const piece of pieces) {
      decoder.push(piece);
      for (;;) {
        const request = decoder.next(admit);
        if (request !== undefined) requests.push({ ...request, payload: request.payload.slice() });
        else if (!decoder.isWaiting) break;
      }
    }
  });
  return { requests, isRefused: error !== undefined };
}

/** The same out of a stream that is there as a whole. */
function reference(bytes: Uint8Array, maxBytes: number): ReturnType<typeof decode> {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const requests: Request[] = [];
  for (let at = 0; at + 28 <= buffer.length;) {
    if (buffer.readUInt32BE(at) !== magic.request) return { requests, isRefused: true };
    const type = buffer.readUInt16BE(at + 6);
    const length = buffer.readUInt32BE(at + 24);
    const end = at + 28 + (type === command.write ? length : 0);
    if (end > buffer.length) break;
    requests.push({
      flags: buffer.readUInt16BE(at + 4),
      type,
      cookieHigh: buffer.readUInt32BE(at + 8),
      cookieLow: buffer.readUInt32BE(at + 12),
      offset: Number(buffer.readBigUInt64BE(at + 16)),
      length,
      wholeLength: length,
      isFirst: true,
      isLast: true,
      payload: length > maxBytes ? new Uint8Array() : new Uint8Array(buffer.subarray(at + 28, end)),
    });
    at = end;
  }
  return { requests, isRefused: false };
}

const maxBytes = 150;

const requests = target<{ stream: Mutated<Sent[]>; places: number[] }>({
  name: "nbd-requests",
  inputs: fc.record({
    stream: mutated(fc.array(sent, { maxLength: 5 }), (list) => joined(...list.map(encodeRequest))),
    places: cuts,
  }),
  runs: 1000,
  check({ stream: { bytes }, places }) {
    const expected = reference(bytes, maxBytes);
    for (const pieces of segmentations(bytes, places)) same(decode(pieces, maxBytes), expected, "requests");
    return expected.isRefused ? "refused" : "accepted";
  },
});

const rules = fc.record({
  sizeBytes: fc.constantFrom(512, 1 << 20, 2 ** 40),
  structuredReplies: fc.boolean(),
  metaContextCount: fc.nat(2),
});

const validation = target<{ request: Sent; rules: Parameters<typeof refusalOf>[1] }>({
  name: "nbd-validation",
  inputs: fc.record({
    request: fc.record({
      flags: fc.oneof(fc.constant(0), fc.constantFrom(1, 2, 4, 8, 16, 32)),
      type: fc.nat(8),
      cookieHigh: fc.constant(0),
      cookieLow: fc.constant(0),
      offset: fc.oneof(fc.nat(1 << 20), fc.constantFrom(0, 511, 512, 2 ** 40 - 1, 2 ** 53, 2 ** 64)),
      length: fc.oneof(fc.nat(4096), fc.constantFrom(0, 1, 2 ** 25, 2 ** 25 + 1, 2 ** 32 - 1)),
      payload: fc.constant(new Uint8Array()),
    }),
    rules,
  }),
  runs: 3000,
  check({ request, rules }) {
    const refusal = refusalOf(request, rules);
    if (refusal !== undefined) return "refused";
    const { type, offset, length, flags } = request;
    assert.ok(BigInt(offset) + BigInt(length) <= BigInt(rules.sizeBytes), "past the end of the disk");
    const carries = [command.read, command.write, command.cache] as number[];
    assert.ok(!carries.includes(type) || length <= maxPayloadBytes, "longer than a message may be");
    assert.ok(type !== command.blockStatus || rules.metaContextCount > 0);
    assert.ok(type !== command.disconnect && type <= 7);
    assert.is(flags & ~0x1f, 0, "a flag that means nothing");
    return "accepted";
  },
});

export const nbdTargets: readonly Target[] = [infoOption, metaOption, handshake, requests, validation];
