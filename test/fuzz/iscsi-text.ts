/** Text keys of a login and the forms of their values. */
import fc from "fast-check";
import { ProtocolError } from "../../src/iscsi-initiator/errors.ts";
import { parseTargetAddress } from "../../src/iscsi-initiator/login-status.ts";
import * as text from "../../src/iscsi-initiator/text.ts";
import * as assert from "uvu/assert";
import { attempt, same } from "./expect.ts";
import { type Mutated, mutated, mutatedText } from "./mutation.ts";
import { type Target, target } from "./target.ts";

const keyNames = [
  "AuthMethod",
  "CHAP_A",
  "CHAP_C",
  "CHAP_I",
  "CHAP_N",
  "CHAP_R",
  "HeaderDigest",
  "DataDigest",
  "MaxRecvDataSegmentLength",
  "MaxBurstLength",
  "InitialR2T",
  "ImmediateData",
  "DefaultTime2Wait",
  "ErrorRecoveryLevel",
  "TargetPortalGroupTag",
  "X-org.example.key",
];
const values = [
  "CHAP",
  "None",
  "Yes",
  "No",
  "5",
  "6,5",
  "0x10",
  "0xzz",
  "0b",
  "0bAAAA",
  "-1",
  "1",
  "262144",
  "99999999999",
];
const words = [
  ...values,
  ...keyNames,
  "Reject",
  "NotUnderstood",
  "Irrelevant",
  "\0",
  "=",
  "CRC32C,None",
  "\u00e9",
];
export const someKey = fc.constantFrom(...keyNames);
export const someValue = fc.oneof(
  fc.constantFrom(...values, "Reject", "NotUnderstood", "Irrelevant"),
  fc.string({ maxLength: 12 }),
);

export type Pairs = [string, string][];
const pairs: fc.Arbitrary<Pairs> = fc.uniqueArray(fc.tuple(someKey, someValue), {
  maxLength: 8,
  selector: ([key]) => key,
}).map((list) => list.map(([key, value]) => [key, value.replaceAll("\0", "")]));

const textKeys = target<Mutated<Pairs>>({
  name: "iscsi-text-keys",
  inputs: mutated(pairs, text.encodeText, { words }),
  runs: 3000,
  check({ bytes, value, isDamaged }) {
    const { value: found } = attempt([ProtocolError], () => text.parseText(bytes));
    if (found === undefined) {
      assert.ok(isDamaged, "honest text is refused");
      return "refused";
    }
    if (!isDamaged) same([...found], value, "pairs");
    assert.ok(bytes.length === 0 || bytes.at(-1) === 0, "text that was cut short is taken for whole");
    for (const key of found.keys()) assert.ok(/^[A-Za-z][!-<>-~]{0,62}$/.test(key), `the key ${key}`);
    // A key that stands there twice is not quietly one.
    const sent = new TextDecoder().decode(bytes).split("\0").filter((pair) => pair !== "");
    assert.is(found.size, sent.length);
    same([...text.parseText(text.encodeText(found))], [...found], "written again");
    return "accepted";
  },
});

const numberText = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 66n }).map(String),
  fc.bigInt({ min: 0n, max: 2n ** 66n }).map((value) => `0x${value.toString(16)}`),
  fc.nat(70_000).map(String),
  fc.constantFrom("", "0x", "0b", " 1", "1 ", "+1", "1e3", "0X1F", "0b101", "٣", "1.0"),
);

const numbers = target<{ written: string; min: number; max: number }>({
  name: "iscsi-numbers",
  inputs: fc.record({
    written: mutatedText(numberText, (value) => value).map(({ text }) => text),
    min: fc.nat(2),
    max: fc.constantFrom(255, 65535, 0xffffff, 2 ** 40),
  }),
  runs: 3000,
  check({ written, min, max }) {
    const found = text.parseNumber(written, min, max);
    const isNumber = /^(?:[0-9]+|0[xX][0-9a-fA-F]+)$/.test(written);
    const value = isNumber ? BigInt(written) : undefined;
    if (found === undefined) return "refused";
    assert.is(BigInt(found), value, written);
    assert.ok(found >= min && found <= max);
    return "accepted";
  },
});

const binaryText = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 40 }).map(text.encodeBinary),
  fc.uint8Array({ minLength: 1, maxLength: 40 }).map((bytes) => `0b${Buffer.from(bytes).toString("base64")}`),
);

const binaries = target<string>({
  name: "iscsi-binaries",
  inputs: mutatedText(binaryText, (value) => value, { words: ["0x", "0b", "=", "=="] }).map(({ text }) =>
    text
  ),
  runs: 3000,
  check(written) {
    const maxBytes = 24;
    const found = text.parseBinary(written, maxBytes);
    if (found === undefined) return "refused";
    assert.ok(found.length > 0 && found.length <= maxBytes);
    const digits = written.slice(2);
    const isHex = /^0[xX][0-9a-fA-F]+$/.test(written);
    assert.ok(isHex || /^0[bB][0-9A-Za-z+/]+={0,2}$/.test(written), "neither hex nor base64");
    if (isHex) {
      assert.is(Buffer.from(found).toString("hex"), digits.toLowerCase().padStart(2 * found.length, "0"));
    }
    return "accepted";
  },
});

const address = target<{ written: string; host: string; port: number; isDamaged: boolean }>({
  name: "iscsi-target-address",
  inputs: mutatedText(
    fc.record({
      host: fc.constantFrom("192.0.2.7", "node-1.example", "[::1]", "[2001:db8::2]"),
      port: fc.option(fc.integer({ min: 1, max: 65535 })),
      group: fc.option(fc.nat(65535)),
    }),
    ({ host, port, group }) =>
      `${host}${port === null ? "" : `:${port}`}${group === null ? "" : `,${group}`}`,
    { words: [":", "]", "[", ",", "/"] },
  ).map(({ text, value: { host, port }, isDamaged }) => ({
    written: text,
    host: host.replace(/[[\]]/g, ""),
    port: port ?? 3260,
    isDamaged,
  })),
  runs: 3000,
  check({ written, host, port, isDamaged }) {
    const found = parseTargetAddress(written);
    if (!isDamaged) assert.equal(found, { host, port });
    if (found === undefined) return "refused";
    assert.ok(found.port >= 1 && found.port <= 65535 && found.host !== "");
    assert.not.ok(/[\s/@[\]]/.test(found.host), "a host that is more than a name");
    return "accepted";
  },
});

export const textTargets: readonly Target[] = [textKeys, numbers, binaries, address];
