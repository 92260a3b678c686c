import { suite } from "uvu";
import * as assert from "uvu/assert";
import { command, commandFlag, maxPayloadBytes } from "../../src/nbd-server/protocol.ts";
import type { Request } from "../../src/nbd-server/request-decoder.ts";
import { refusalOf } from "../../src/nbd-server/validation.ts";
import { nbdError, wireErrorOf } from "../../src/nbd-server/wire-errors.ts";
import { coded } from "./memory-device.ts";

const test = suite("refusalOf and wireErrorOf");

const sizeBytes = 2 ** 36;
const rules = { sizeBytes, structuredReplies: true, metaContextCount: 1 };
const { EINVAL, ENOSPC, EOVERFLOW, EIO, EPERM, ENOTSUP, ENOMEM } = nbdError;
const { read, write, flush, trim, cache, writeZeroes, blockStatus } = command;
const { fua, noHole, df, reqOne, fastZero } = commandFlag;

/** The NBD error, or 0 if the request may run. */
function judged(type: number, request: Partial<Request> = {}, changed: Partial<typeof rules> = {}): number {
  return refusalOf({ type, flags: 0, offset: 0, length: 512, ...request }, { ...rules, ...changed })?.error ??
    0;
}

test("each command accepts its own flags and FUA, and no others", () => {
  const allowed = new Map<number, number>([
    [read, fua | df],
    [write, fua],
    [flush, fua],
    [trim, fua],
    [cache, fua],
    [writeZeroes, fua | noHole | fastZero],
    [blockStatus, fua | reqOne],
  ]);
  for (const [type, flags] of allowed) {
    const length = type === flush ? 0 : 512;
    for (let bit = 0; bit < 16; bit++) {
      const expected = (flags & (1 << bit)) !== 0 ? 0 : EINVAL;
      assert.is(judged(type, { flags: 1 << bit, length }), expected, `command ${type}, flag ${bit}`);
    }
    assert.is(judged(type, { flags, length }), 0);
  }
});

test("unknown commands are EINVAL", () => {
  for (const type of [8, 9, 255, 0xffff]) assert.is(judged(type), EINVAL);
});

test("past the end: EINVAL for reads, trims, cache and status, ENOSPC for writes and zeroes", () => {
  const beyond = [
    { offset: sizeBytes - 511 },
    { offset: sizeBytes },
    { offset: sizeBytes + 1, length: 0 },
    { offset: 2 ** 64 },
    { offset: 2 ** 53, length: 1 },
  ];
  for (const request of beyond) {
    for (const type of [read, trim, cache]) assert.is(judged(type, request), EINVAL);
    assert.is(judged(blockStatus, request), EINVAL);
    for (const type of [write, writeZeroes]) assert.is(judged(type, request), ENOSPC);
  }
});

test("up to the end is allowed, also of odd length and nothing at all", () => {
  for (const type of [read, write, trim, cache, writeZeroes]) {
    assert.is(judged(type, { offset: sizeBytes - 512 }), 0);
    assert.is(judged(type, { offset: sizeBytes - 1, length: 1 }), 0);
    assert.is(judged(type, { offset: sizeBytes, length: 0 }), 0);
  }
});

test("payloads over 32 MiB are refused; trims, zeroes and status may be longer", () => {
  const length = maxPayloadBytes + 1;
  assert.is(judged(read, { length }), EOVERFLOW);
  assert.is(judged(read, { length }, { structuredReplies: false }), EINVAL);
  assert.is(judged(write, { length }), EINVAL);
  assert.is(judged(cache, { length }), EOVERFLOW);
  for (const type of [read, write, cache]) assert.is(judged(type, { length: maxPayloadBytes }), 0);
  for (const type of [trim, writeZeroes, blockStatus]) assert.is(judged(type, { length: 2 ** 32 - 1 }), 0);
});

test("flush has neither offset nor length", () => {
  assert.is(judged(flush, { length: 0 }), 0);
  assert.is(judged(flush, { length: 1 }), EINVAL);
  assert.is(judged(flush, { length: 0, offset: 1 }), EINVAL);
});

test("block status needs a selected context and a length; DF needs structured replies", () => {
  assert.is(judged(blockStatus), 0);
  assert.is(judged(blockStatus, {}, { metaContextCount: 0 }), EINVAL);
  assert.is(judged(blockStatus, { length: 0 }), EINVAL);
  assert.is(judged(read, { flags: df }, { structuredReplies: false }), EINVAL);
});

test("error codes map to the protocol's; the rest is EIO; ESHUTDOWN is never said", () => {
  const table: [string, number][] = [
    ["EPERM", EPERM],
    ["EACCES", EPERM],
    ["EROFS", EPERM],
    ["EIO", EIO],
    ["ENOMEM", ENOMEM],
    ["EINVAL", EINVAL],
    ["ENOSPC", ENOSPC],
    ["EDQUOT", ENOSPC],
    ["EFBIG", ENOSPC],
    ["EOVERFLOW", EOVERFLOW],
    ["ESHUTDOWN", EIO],
    ["ECONNRESET", EIO],
    ["toString", EIO],
  ];
  for (const [code, expected] of table) assert.is(wireErrorOf(coded(code, "x"), false), expected, code);
  for (const thrown of [new Error("no code"), "text", undefined, { code: "ENOSPC" }]) {
    assert.is(wireErrorOf(thrown, false), EIO);
  }
});

test("ENOTSUP answers fast zero requests only", () => {
  assert.is(wireErrorOf(coded("ENOTSUP", "x"), true), ENOTSUP);
  assert.is(wireErrorOf(coded("EOPNOTSUPP", "x"), true), ENOTSUP);
  assert.is(wireErrorOf(coded("ENOTSUP", "x"), false), EINVAL);
});

test.run();
