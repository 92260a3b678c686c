import { Buffer } from "node:buffer";
import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { decodeCbor, encodeCbor, problemOfCbor } from "../../src/lib/cbor.ts";

const hex = (text: string) => new Uint8Array(Buffer.from(text.replaceAll(" ", ""), "hex"));

const plain = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom(null, true, false),
    fc.maxSafeInteger(),
    fc.double({ noNaN: true }),
    fc.string({ unit: "binary" }),
    fc.array(tie("value"), { maxLength: 4 }),
    fc.dictionary(fc.string({ maxLength: 8 }).filter((key) => key !== "__proto__"), tie("value"), {
      maxKeys: 4,
      noNullPrototype: true,
    }),
  ),
})).value;

const test = suite("cbor");

test("what was encoded is decoded the same", () => {
  fc.assert(fc.property(plain, (value) => {
    assert.equal(decodeCbor(encodeCbor(value)), value);
  }));
  assert.is(decodeCbor(encodeCbor(undefined)), undefined);
  assert.is(decodeCbor(encodeCbor(2n ** 63n)), 2n ** 63n);
  const bytes = decodeCbor(encodeCbor(new Uint8Array(70_000).fill(7))) as Uint8Array;
  assert.is(Buffer.compare(bytes, new Uint8Array(70_000).fill(7)), 0);
});

test("known encodings (RFC 8949, appendix A) are read", () => {
  const examples: [string, unknown][] = [
    ["00", 0],
    ["1903e8", 1000],
    ["3903e7", -1000],
    ["f90001", 5.960464477539063e-8],
    ["fb3ff199999999999a", 1.1],
    ["6449455446", "IETF"],
    ["83010203", [1, 2, 3]],
    ["a26161016162820203", { a: 1, b: [2, 3] }],
  ];
  for (const [bytes, value] of examples) assert.equal(decodeCbor(hex(bytes)), value, bytes);
});

test("what is not plain data is refused on the way out", () => {
  const values = [new Date(), new Map([[1, 2]]), new Set(), /x/, new Error("x"), () => 1, Symbol("s")];
  for (const value of [...values, new Float64Array(2), 2n ** 70n]) {
    assert.throws(() => encodeCbor(value), /plain data/, String(value));
    assert.throws(() => encodeCbor({ deep: [value] }), /plain data/);
  }
});

test("tags, odd keys, indefinite lengths, undefined simple values and lies are refused on the way in", () => {
  const wrong: [string, RegExp][] = [
    ["", /too early/],
    ["c11a514b67b0", /a tag/],
    ["d81b8263457272 6178", /a tag/],
    ["81 d81c 80", /a tag/],
    ["a1 01 02", /key that is not a string/],
    ["a1 6161", /too early/],
    ["9f 01 ff", /indefinite/],
    ["7f 6161 ff", /indefinite/],
    ["1c", /reserved/],
    ["f0", /not defined/],
    ["f818", /not defined/],
    ["ff", /indefinite/],
    ["0000", /1 bytes too many/],
    ["9bffffffffffffffff", /too early/],
    ["bb00200000000000 00", /too early/],
    ["5affffffff 00", /too early/],
    ["19 03", /too early/],
    ["3b8000000000000000", /more than 64 bits/],
    ["a1 69 5f5f70726f746f5f5f 00", /__proto__/],
    ["a1 7809 5f5f70726f746f5f5f 00", /__proto__/],
    ["81".repeat(66) + "00", /more than 64 deep/],
  ];
  for (const [bytes, expected] of wrong) assert.throws(() => decodeCbor(hex(bytes)), expected, bytes);
});

test("any bytes are a plain value or a TypeError", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      try {
        const value = decodeCbor(bytes);
        // What was accepted can be written again, so it was plain.
        encodeCbor(value);
      } catch (error) {
        assert.instance(error, TypeError);
      }
    }),
    { numRuns: 5000 },
  );
});

test("every truncation of a value is noticed", () => {
  const bytes = encodeCbor({ list: [1, 2.5, "text", new Uint8Array(9), null], more: { a: -70_000 } });
  assert.is(problemOfCbor(bytes), undefined);
  for (let length = 0; length < bytes.length; length++) {
    assert.ok(problemOfCbor(bytes.subarray(0, length)) !== undefined, `${length} bytes`);
  }
});

test.run();
