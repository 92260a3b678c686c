/** Valid encodings, damaged in the ways that find the missing checks of a decoder. */
import fc from "fast-check";

/** Positions and lengths are taken modulo what is there, so that every edit fits every encoding. */
type Edit =
  | { readonly kind: "flip"; readonly at: number; readonly bit: number }
  | { readonly kind: "set"; readonly at: number; readonly byte: number }
  /** Adds to the big- or little-endian number of so many bytes, which may well be a length. */
  | { readonly kind: "add"; readonly at: number; readonly bytes: number; readonly by: number }
  | { readonly kind: "fill"; readonly at: number; readonly length: number; readonly byte: number }
  | { readonly kind: "truncate"; readonly at: number }
  | { readonly kind: "remove"; readonly at: number; readonly length: number }
  | { readonly kind: "duplicate"; readonly at: number; readonly length: number; readonly to: number }
  | { readonly kind: "insert"; readonly at: number; readonly data: Uint8Array }
  /** A piece of another valid encoding, over what is there. */
  | { readonly kind: "splice"; readonly at: number; readonly from: number; readonly length: number };

const position = fc.nat(1 << 20);
const byte = fc.oneof(fc.constantFrom(0, 1, 2, 0x7f, 0x80, 0xfe, 0xff), fc.nat(255));

function edits(words: readonly string[]): fc.Arbitrary<Edit> {
  const pieces = fc.uint8Array({ minLength: 1, maxLength: 8 });
  const known = words.map((word) => new TextEncoder().encode(word));
  return fc.oneof(
    fc.record({ kind: fc.constant("flip" as const), at: position, bit: fc.nat(7) }),
    fc.record({ kind: fc.constant("set" as const), at: position, byte }),
    fc.record({
      kind: fc.constant("add" as const),
      at: position,
      bytes: fc.constantFrom(1, 2, 4, -2, -4),
      by: fc.constantFrom(-8, -4, -2, -1, 1, 2, 3, 4, 8, 16, 2 ** 16, 2 ** 31),
    }),
    fc.record({
      kind: fc.constant("fill" as const),
      at: position,
      length: fc.integer({ min: 1, max: 8 }),
      byte,
    }),
    fc.record({ kind: fc.constant("truncate" as const), at: position }),
    fc.record({
      kind: fc.constant("remove" as const),
      at: position,
      length: fc.integer({ min: 1, max: 24 }),
    }),
    fc.record({
      kind: fc.constant("duplicate" as const),
      at: position,
      length: fc.integer({ min: 1, max: 64 }),
      to: position,
    }),
    fc.record({
      kind: fc.constant("insert" as const),
      at: position,
      data: known.length === 0 ? pieces : fc.oneof(pieces, fc.constantFrom(...known)),
    }),
    fc.record({
      kind: fc.constant("splice" as const),
      at: position,
      from: position,
      length: fc.integer({ min: 1, max: 64 }),
    }),
  );
}

function apply(bytes: Uint8Array, edit: Edit, other: Uint8Array): Uint8Array {
  const at = edit.at % (bytes.length + 1);
  switch (edit.kind) {
    case "flip":
      return changed(bytes, at, (byte) => byte ^ (1 << edit.bit));
    case "set":
      return changed(bytes, at, () => edit.byte);
    case "add":
      return added(bytes, at, edit.bytes, edit.by);
    case "fill":
      return bytes.slice().fill(edit.byte, at, at + edit.length);
    case "truncate":
      return bytes.slice(0, at);
    case "remove":
      return joined(bytes.subarray(0, at), bytes.subarray(at + edit.length));
    case "duplicate": {
      const to = edit.to % (bytes.length + 1);
      return joined(bytes.subarray(0, to), bytes.subarray(at, at + edit.length), bytes.subarray(to));
    }
    case "insert":
      return joined(bytes.subarray(0, at), edit.data, bytes.subarray(at));
    case "splice": {
      const from = edit.from % (other.length + 1);
      const piece = other.subarray(from, from + edit.length);
      return joined(bytes.subarray(0, at), piece, bytes.subarray(at + piece.length));
    }
  }
}

function changed(bytes: Uint8Array, at: number, change: (byte: number) => number): Uint8Array {
  const copy = bytes.slice();
  if (at < copy.length) copy[at] = change(copy[at]!);
  return copy;
}

/** `size` below zero: little-endian. */
function added(bytes: Uint8Array, at: number, size: number, by: number): Uint8Array {
  const count = Math.abs(size);
  if (at + count > bytes.length) return bytes;
  const copy = bytes.slice();
  const order = (index: number) => size > 0 ? at + count - 1 - index : at + index;
  let rest = by;
  for (let index = 0; index < count; index++) {
    const sum = copy[order(index)]! + (rest & 0xff);
    copy[order(index)] = sum;
    rest = (rest >> 8) + (sum >> 8);
  }
  return copy;
}

export function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** An encoding, and what it was made of. */
export interface Mutated<T> {
  readonly value: T;
  readonly bytes: Uint8Array;
  /** `bytes` is no longer the encoding of `value`. */
  readonly isDamaged: boolean;
}

export interface MutationOptions {
  /** Put in at random places. */
  readonly words?: readonly string[];
  /** Mends what would hide all damage but its own: a checksum. */
  mend?(bytes: Uint8Array): Uint8Array;
}

/** Valid encodings, a third of them whole, the others with up to four edits. */
export function mutated<T>(
  valid: fc.Arbitrary<T>,
  encode: (value: T) => Uint8Array,
  { words = [], mend = (bytes) => bytes }: MutationOptions = {},
): fc.Arbitrary<Mutated<T>> {
  const list = fc.oneof(
    { weight: 1, arbitrary: fc.constant<Edit[]>([]) },
    { weight: 2, arbitrary: fc.array(edits(words), { minLength: 1, maxLength: 4 }) },
  );
  // A Buffer's slice would be a view.
  const encoded = (value: T) => new Uint8Array(encode(value));
  return fc.tuple(valid, valid, list).map(([value, other, changes]) => {
    const whole = encoded(value);
    if (changes.length === 0) return { value, bytes: embedded(whole), isDamaged: false };
    const source = encoded(other);
    const damaged = changes.reduce<Uint8Array>((bytes, edit) => apply(bytes, edit, source), whole);
    const bytes = mend(damaged);
    return { value, bytes: embedded(bytes), isDamaged: !isSame(bytes, whole) };
  });
}

/** A part of a larger buffer, as chunks of a socket are: what is read beyond its ends is not zero. */
function embedded(bytes: Uint8Array): Uint8Array {
  const margin = 16;
  const buffer = new Uint8Array(bytes.length + 2 * margin).fill(0x5a);
  buffer.set(bytes, margin);
  return buffer.subarray(margin, margin + bytes.length);
}

/** The same with text; what is no UTF-8 afterwards has replacement characters. */
export function mutatedText<T>(
  valid: fc.Arbitrary<T>,
  write: (value: T) => string,
  options: MutationOptions = {},
): fc.Arbitrary<Omit<Mutated<T>, "bytes"> & { readonly text: string }> {
  const encode = (value: T) => new TextEncoder().encode(write(value));
  return mutated(valid, encode, options).map(({ value, bytes }) => {
    const text = new TextDecoder().decode(bytes);
    return { value, text, isDamaged: text !== write(value) };
  });
}

export function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

/** Where a stream is cut, in bytes; taken modulo its length. */
export const cuts = fc.array(position, { maxLength: 8 });

/** The stream whole, cut at these places, and byte by byte: what comes out must be the same. */
export function segmentations(bytes: Uint8Array, places: readonly number[]): Uint8Array[][] {
  const at = [...new Set([0, ...places.map((place) => place % (bytes.length + 1)), bytes.length])]
    .sort((a, b) => a - b);
  const pieces = at.slice(1).map((end, index) => bytes.subarray(at[index], end));
  const single = Array.from(bytes, (_, index) => bytes.subarray(index, index + 1));
  return [bytes.length === 0 ? [] : [bytes], pieces, single];
}
