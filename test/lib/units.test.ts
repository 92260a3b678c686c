import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { UsageError } from "../../src/lib/errors.ts";
import {
  formatDuration,
  formatRate,
  formatSize,
  parseDuration,
  parseRate,
  parseSize,
} from "../../src/lib/units.ts";

const KiB = 1024, MiB = KiB * 1024, GiB = MiB * 1024, TiB = GiB * 1024;

const refused = (parse: (text: string) => unknown, texts: readonly string[]) => {
  for (const text of texts) {
    assert.throws(
      () => parse(text),
      (error: unknown) => error instanceof UsageError && error.hint!.startsWith("write "),
      `"${text}" was accepted`,
    );
  }
};

const test = suite("units");

test("parseSize() takes the forms that people use", () => {
  const forms: [string, number][] = [
    ["0", 0],
    ["4096", 4096],
    ["512B", 512],
    ["500MiB", 500 * MiB],
    ["1.5GiB", 1.5 * GiB],
    ["100M", 100 * MiB],
    ["64k", 64 * KiB],
    ["64K", 64 * KiB],
    ["2g", 2 * GiB],
    ["64 KiB", 64 * KiB],
    ["10MB", 10e6],
    ["1kB", 1000],
    ["2.5TB", 2.5e12],
    ["64TiB", 64 * TiB],
    [" 1G ", GiB],
    ["0.1GiB", 107374182],
    ["9007199254740991", Number.MAX_SAFE_INTEGER],
  ];
  for (const [text, bytes] of forms) assert.is(parseSize(text), bytes, text);
});

test("parseSize() refuses everything else", () => {
  const texts = ["", " ", "-1", "1e3", "abc", "5X", "1.5", "1.5B", "5iB", "1 . 5G", "1,5G", "0x10", "G"];
  refused(parseSize, [...texts, "100Mb", "100Mbit", "9007199254740992", "8192PiB", "9P9", "1G1M", "0.0001k"]);
  refused(parseSize, ["NaN", "Infinity", "1.G", ".5G", "5GiB/s", "١٢"]);
});

test("parseRate() takes sizes with and without /s, and words for no limit", () => {
  assert.is(parseRate("1.5GiB/s"), 1.5 * GiB);
  assert.is(parseRate("100M"), 100 * MiB);
  assert.is(parseRate("1/s"), 1);
  for (const text of ["off", "none"]) assert.is(parseRate(text), null);
  refused(parseRate, ["", "0", "0/s", "0MiB/s", "fast", "-1M", "10M/m", "10M/h", "100Mbit/s", "OFF ?", "/s"]);
});

test("parseDuration() takes units in falling order", () => {
  const forms: [string, number][] = [
    ["90s", 90_000],
    ["2h", 7_200_000],
    ["1h30m", 5_400_000],
    ["1h 30m", 5_400_000],
    ["1d12h", 129_600_000],
    ["500ms", 500],
    ["1s500ms", 1500],
    ["5m", 300_000],
    ["5min", 300_000],
    ["1.5h", 5_400_000],
    ["0s", 0],
  ];
  for (const [text, durationMs] of forms) assert.is(parseDuration(text), durationMs, text);
  refused(parseDuration, [
    "",
    "90",
    "h",
    "30m1h",
    "1h1h",
    "1.5h30m",
    "-5s",
    "1w",
    "9999999999999d",
    "1 hour",
  ]);
});

test("formatSize() rounds to about three digits and never prints 1024 of a unit", () => {
  const forms: [number, string][] = [
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1 KiB"],
    [1536, "1.5 KiB"],
    [420 * MiB, "420 MiB"],
    [1.5 * GiB, "1.5 GiB"],
    [GiB - 1, "1 GiB"],
    [99.96 * MiB, "100 MiB"],
    [64 * TiB, "64 TiB"],
    [Number.MAX_SAFE_INTEGER, "8 PiB"],
  ];
  for (const [bytes, text] of forms) assert.is(formatSize(Math.round(bytes)), text);
  fc.assert(fc.property(fc.maxSafeNat(), (bytes) => {
    assert.match(formatSize(bytes), /^(\d{1,3}|10[012]\d|\d{1,2}\.\d) ([KMGTP]i)?B$/);
  }));
});

test("parseSize(formatSize(n)) is n, but for the rounding", () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 2 ** 52 }), (bytes) => {
    const back = parseSize(formatSize(bytes));
    assert.ok(Math.abs(back - bytes) <= bytes * 0.05, `${bytes} became ${back}`);
  }));
});

test("formatRate() and parseRate() agree on no limit", () => {
  assert.is(formatRate(420 * MiB), "420 MiB/s");
  assert.is(formatRate(null), "off");
  assert.is(parseRate(formatRate(null)), null);
  assert.is(parseRate(formatRate(420 * MiB)), 420 * MiB);
});

test("formatDuration() gives at most two units", () => {
  const forms: [number, string][] = [
    [0, "0 ms"],
    [350, "350 ms"],
    [999.7, "1 s"],
    [4200, "4.2 s"],
    [9990, "10 s"],
    [45_000, "45 s"],
    [59_600, "1 min"],
    [200_000, "3 min 20 s"],
    [7_500_000, "2 h 5 min"],
    [3_599_600, "1 h"],
    [86_400_000, "1 d"],
    [86_390_000, "1 d"],
    [273_600_000, "3 d 4 h"],
  ];
  for (const [durationMs, text] of forms) assert.is(formatDuration(durationMs), text);
});

test("parseDuration() takes what was put together from its units", () => {
  const part = fc.nat({ max: 1000 });
  fc.assert(fc.property(part, part, part, part, part, (d, h, m, s, ms) => {
    const expected = d * 86_400_000 + h * 3_600_000 + m * 60_000 + s * 1000 + ms;
    assert.is(parseDuration(`${d}d${h}h${m}m${s}s${ms}ms`), expected);
  }));
});

test("the parsers survive any text", () => {
  for (const parse of [parseSize, parseRate, parseDuration]) {
    fc.assert(fc.property(fc.string(), (text) => {
      try {
        const value = parse(text);
        assert.ok(value === null || (Number.isSafeInteger(value) && value >= 0));
      } catch (error) {
        assert.instance(error, UsageError);
      }
    }));
  }
});

test.run();
