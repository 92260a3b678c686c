/** Text keys: `key=value` pairs, each ended by a NUL (RFC 7143 §6.1). Pure. */
import { ProtocolError } from "./errors.ts";

/** All bounds are far above what a login needs, and small enough for memory. */
export const textLimits = {
  totalBytes: 65536,
  pairs: 256,
  /** RFC 7143 §6.1: a key name has at most 63 characters. */
  keyBytes: 63,
} as const;

export type TextKeys = ReadonlyMap<string, string>;

export function encodeText(pairs: Iterable<readonly [string, string]>): Uint8Array {
  let all = "";
  for (const [key, value] of pairs) all += `${key}=${value}\0`;
  return Buffer.from(all, "utf8");
}

const keyPattern = /^[A-Za-z][A-Za-z0-9.\-+@_/#]*$/;

/** Throws `ProtocolError` on text that is cut short, malformed, too long, or names a key twice. */
export function parseText(bytes: Uint8Array): Map<string, string> {
  const pairs = new Map<string, string>();
  if (bytes.length === 0) return pairs;
  if (bytes.length > textLimits.totalBytes) {
    throw new ProtocolError(
      `the target sent ${bytes.length} bytes of text, more than ${textLimits.totalBytes}`,
    );
  }
  if (bytes[bytes.length - 1] !== 0) throw new ProtocolError("the target sent text that is cut short");
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8");
  for (const pair of text.split("\0")) {
    if (pair === "") continue;
    const equals = pair.indexOf("=");
    const key = pair.slice(0, Math.max(0, equals));
    if (key.length > textLimits.keyBytes || !keyPattern.test(key)) {
      throw new ProtocolError("the target sent text that is not key=value pairs");
    }
    if (pairs.has(key)) throw new ProtocolError(`the target sent the key ${key} twice`);
    pairs.set(key, pair.slice(equals + 1));
    if (pairs.size > textLimits.pairs) throw new ProtocolError("the target sent too many text keys");
  }
  return pairs;
}

/** A decimal or 0x number of at most 64 bits in [min, max], else undefined (RFC 7143 §6.1). */
export function parseNumber(value: string, min: number, max: number): number | undefined {
  if (!/^([0-9]{1,20}|0[xX][0-9a-fA-F]{1,16})$/.test(value)) return undefined;
  const number = Number(value);
  return number >= min && number <= max ? number : undefined;
}

/** A hex (0x…) or base64 (0b…) constant of at most `maxBytes`, else undefined (RFC 7143 §6.1). */
export function parseBinary(value: string, maxBytes: number): Uint8Array | undefined {
  const digits = value.slice(2);
  if (digits === "" || digits.length > 2 * maxBytes) return undefined;
  let bytes: Uint8Array | undefined;
  if (/^0[xX]/.test(value) && /^[0-9a-fA-F]+$/.test(digits)) {
    bytes = Buffer.from(digits.length % 2 === 0 ? digits : `0${digits}`, "hex");
  } else if (/^0[bB]/.test(value) && /^[0-9a-zA-Z+/]+={0,2}$/.test(digits)) {
    bytes = Buffer.from(digits, "base64");
  }
  return bytes !== undefined && bytes.length > 0 && bytes.length <= maxBytes ? bytes : undefined;
}

export function encodeBinary(bytes: Uint8Array): string {
  return `0x${Buffer.from(bytes).toString("hex")}`;
}
