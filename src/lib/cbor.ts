/**
 * CBOR (RFC 8949) for plain data only: null, undefined, booleans, numbers, 64-bit integers as bigint,
 * strings, bytes, arrays and maps with string keys.
 *
 * A decoder for hostile input must not meet tags: the library turns some of them into regular expressions,
 * errors, shared references and other things that no message or file here means. And a byte can stand for a
 * whole object, so that a message of some megabytes becomes a gigabyte. So the structure is walked before it is
 * decoded, and again after it was encoded, and what is not plain, or too much, is refused on either side.
 */
import { Encoder } from "cbor-x/index-no-eval";

/** Nesting allowed below the top value. */
const maxDepth = 64;
/** Values in all, keys included. The largest messages of dlsm have some ten thousand. */
const maxValues = 2 ** 19;

const codec = new Encoder({ useRecords: false, tagUint8Array: false });

/** The value as CBOR bytes. Throws TypeError for what is not plain data (dates, maps, functions, cycles). */
export function encodeCbor(value: unknown): Uint8Array {
  let bytes: Uint8Array;
  try {
    bytes = codec.encode(value);
  } catch (cause) {
    throw new TypeError("the value cannot be written as plain data", { cause });
  }
  const problem = problemOfCbor(bytes);
  if (problem !== undefined) throw new TypeError(`the value is not plain data: ${problem}`);
  return bytes;
}

/**
 * The one value that `bytes` hold. Throws TypeError if they are not exactly one well-formed plain value.
 * Byte strings in the result alias `bytes`.
 */
export function decodeCbor(bytes: Uint8Array): unknown {
  const problem = problemOfCbor(bytes);
  if (problem !== undefined) throw new TypeError(`not plain CBOR data: ${problem}`);
  return codec.decode(bytes);
}

/** Why `bytes` are not exactly one plain value; undefined if they are. */
export function problemOfCbor(bytes: Uint8Array): string | undefined {
  try {
    const end = skipValue(bytes, 0, 0, { values: 0 });
    return end === bytes.length ? undefined : `${bytes.length - end} bytes too many`;
  } catch (error) {
    if (error instanceof CborProblem) return error.message;
    throw error;
  }
}

class CborProblem extends Error {}

/** Major types (RFC 8949 §3.1). */
const major = { unsigned: 0, negative: 1, bytes: 2, text: 3, array: 4, map: 5, tag: 6, simple: 7 } as const;

/** Checks the value at `start` and returns where it ends. */
function skipValue(bytes: Uint8Array, start: number, depth: number, count: { values: number }): number {
  if (start >= bytes.length) throw new CborProblem("it ends too early");
  if (++count.values > maxValues) throw new CborProblem(`more than ${maxValues} values`);
  if (depth > maxDepth) throw new CborProblem(`nested more than ${maxDepth} deep`);
  const type = bytes[start] >> 5;
  const additional = bytes[start] & 31;
  const afterHead = start + 1 + argumentBytes(additional);
  if (afterHead > bytes.length) throw new CborProblem("it ends too early");
  switch (type) {
    case major.unsigned:
      return afterHead;
    case major.negative:
      // Below -2^63: no 64-bit integer, and nothing that could be written again.
      if (additional === 27 && bytes[start + 1] >= 0x80) {
        throw new CborProblem("an integer of more than 64 bits");
      }
      return afterHead;
    case major.simple:
      // false, true, null, undefined; half, single and double floats.
      if (additional >= 20 && additional <= 27 && additional !== 24) return afterHead;
      throw new CborProblem("a simple value that is not defined");
    case major.tag:
      throw new CborProblem("a tag");
  }

  const length = readArgument(bytes, start + 1, additional);
  // Every element takes at least one byte, so a count beyond the rest is a lie: no loop, no allocation.
  if (length > bytes.length - afterHead) throw new CborProblem("it ends too early");
  if (type === major.bytes || type === major.text) return afterHead + length;
  let at = afterHead;
  for (let index = 0; index < length; index++) {
    if (type === major.map) {
      if (bytes[at] >> 5 !== major.text) throw new CborProblem("a map key that is not a string");
      const keyEnd = skipValue(bytes, at, depth + 1, count);
      // The library would give it another name, without a word.
      if (isProto(bytes.subarray(at, keyEnd))) throw new CborProblem("the map key __proto__");
      at = keyEnd;
    }
    at = skipValue(bytes, at, depth + 1, count);
  }
  return at;
}

const proto = new TextEncoder().encode("__proto__");

/** `key` with its head, which may be longer than it needs to be. */
function isProto(key: Uint8Array): boolean {
  const headBytes = key.length - proto.length;
  return headBytes > 0 && headBytes === 1 + argumentBytes(key[0] & 31) &&
    proto.every((byte, index) => key[headBytes + index] === byte);
}

function argumentBytes(additional: number): number {
  if (additional < 24) return 0;
  if (additional <= 27) return 1 << (additional - 24);
  throw new CborProblem("an indefinite or reserved length");
}

function readArgument(bytes: Uint8Array, at: number, additional: number): number {
  if (additional < 24) return additional;
  let value = 0;
  for (let index = 0; index < argumentBytes(additional); index++) value = value * 256 + bytes[at + index];
  return value;
}
