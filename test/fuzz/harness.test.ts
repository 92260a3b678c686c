/** The fuzzing itself: failures are found and can be checked again, rubbish is refused, edits fit everything. */
import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { attempt, checkWords } from "./expect.ts";
import { isSame, mutated, segmentations } from "./mutation.ts";
import { oneSided, replayCommand, seedOf, type Spec, target } from "./target.ts";
import { targets } from "./targets.ts";
import { reshaped, reshapings } from "./values.ts";

const test = suite("fuzzing");
const seed = 7;

/** Refuses odd numbers, and breaks at large ones. */
const spec: Spec<number> = {
  name: "numbers",
  inputs: fc.nat(1000),
  runs: 300,
  check(number) {
    if (number > 900) throw new TypeError(`${number} is too much`);
    return number % 2 === 0 ? "accepted" : "refused";
  },
};

test("a failure is found, made small, and found again by its seed and path", async () => {
  const numbers = target(spec);
  const { failure } = await numbers.fuzz({ seed });
  assert.match(failure!.message, "901 is too much");
  const again = await numbers.fuzz({ seed, path: failure!.path! });
  assert.match(again.failure!.message, "input: 901");
  assert.is(
    replayCommand("numbers", failure!),
    `npm run fuzz -- --only numbers --seed 7 --path ${failure!.path}`,
  );
});

test("the path of an input is its number, so that one that never ends can be named", async () => {
  const seen: number[] = [];
  const numbers = target({ ...spec, check: (number) => (seen.push(number), "accepted") });
  const counted: number[] = [];
  await numbers.fuzz({ seed, runs: 5, onInput: (number) => counted.push(number) });
  assert.equal(counted, [1, 2, 3, 4, 5]);
  const third = seen[2];
  seen.length = 0;
  await numbers.fuzz({ seed, path: "2", runs: 1 });
  assert.is(seen[0], third);
});

test("a regression is checked before all others, and counts for nothing else", async () => {
  const { failure } = await target({ ...spec, regressions: [4, 950] }).fuzz({ seed });
  assert.match(failure!.message, "a regression: TypeError: 950");
  const report = await target({ ...spec, inputs: fc.constant(1), regressions: [4] }).fuzz({ seed, runs: 10 });
  assert.equal(report.verdicts, { accepted: 0, refused: 10 });
  assert.is(report.executions, 10);
});

test("a generator of which one verdict hardly ever comes is refused", async () => {
  const rubbish = target({ ...spec, inputs: fc.nat(100).map((number) => 2 * number + 1) });
  assert.match(
    oneSided(rubbish, await rubbish.fuzz({ seed }))!,
    "only 0 of 300 inputs were accepted, at least 15",
  );
  const half = target({ ...spec, inputs: fc.nat(800) });
  assert.is(oneSided(half, await half.fuzz({ seed })), undefined);
  const nothing = { executions: 0, verdicts: { accepted: 0, refused: 0 }, slowestMs: 0, failure: undefined };
  assert.ok(oneSided(half, nothing) !== undefined);
});

test("an input that takes too long each time is a failure, one that took long once is none", async () => {
  let calls = 0;
  const slow = (isAlways: boolean) =>
    target({
      ...spec,
      inputs: fc.constant(2),
      slowMs: 500,
      check() {
        const until = performance.now() + (isAlways || calls++ === 0 ? 510 : 0);
        while (performance.now() < until);
        return "accepted";
      },
    });
  assert.is((await slow(false).fuzz({ seed, runs: 1 })).failure, undefined);
  assert.match((await slow(true).fuzz({ seed, runs: 1 })).failure!.message, "again and again");
});

test("only the errors that are declared pass, with words that a log can take", () => {
  assert.instance(attempt([RangeError], () => fail(new RangeError("no"))).error, RangeError);
  assert.throws(() => attempt([RangeError], () => fail(new TypeError("no"))), TypeError);
  assert.match(
    problemOf(() => attempt([RangeError], () => fail(new RangeError("a\u001b[2J")))),
    /control char/,
  );
  assert.match(problemOf(() => checkWords("x".repeat(2000))), /2000 characters/);
  assert.is(attempt([RangeError], () => 3).value, 3);
});

/** `assert.throws` lets failed assertions through. */
function problemOf(work: () => void): string {
  try {
    work();
  } catch (error) {
    return (error as Error).message;
  }
  return "";
}

function fail(error: Error): never {
  throw error;
}

test("a third of the mutations are whole, the others are of every kind, and none changes the original", () => {
  const valid = Uint8Array.from({ length: 40 }, (_, at) => at);
  const kinds = { whole: 0, shorter: 0, longer: 0, sameLength: 0 };
  fc.assert(
    fc.property(mutated(fc.constant(valid), (bytes) => bytes), ({ bytes, isDamaged }) => {
      assert.is(isDamaged, !isSame(bytes, valid));
      assert.equal([...valid], Array.from({ length: 40 }, (_, at) => at));
      // What lies around it in memory is not a part of it.
      assert.is(bytes.buffer.byteLength, bytes.length + 32);
      if (!isDamaged) kinds.whole++;
      else if (bytes.length < valid.length) kinds.shorter++;
      else if (bytes.length > valid.length) kinds.longer++;
      else kinds.sameLength++;
    }),
    { seed, numRuns: 1000 },
  );
  for (const [kind, count] of Object.entries(kinds)) assert.ok(count > 100, `${kind}: ${count}`);
});

test("segmentations are the same stream: whole, cut, byte by byte", () => {
  const bytes = Uint8Array.of(1, 2, 3, 4, 5);
  const lengths = segmentations(bytes, [7, 3, 3]).map((pieces) => pieces.map(({ length }) => length));
  assert.equal(lengths, [[5], [1, 2, 2], [1, 1, 1, 1, 1]]);
  assert.equal(segmentations(new Uint8Array(), [4]).map((pieces) => pieces.length), [0, 0, 0]);
});

test("records are reshaped in any place, in a copy", () => {
  const record = { a: [1, { b: "c" }], d: null };
  const seen = new Set<string>();
  fc.assert(
    fc.property(reshapings, (changes) => {
      seen.add(JSON.stringify(plainly(reshaped(record, changes))));
      assert.equal(record, { a: [1, { b: "c" }], d: null });
    }),
    { seed, numRuns: 500 },
  );
  assert.ok(seen.size > 150, String(seen.size));
  assert.equal(reshaped(record, []), record);
});

const plainly = (value: unknown) =>
  JSON.parse(JSON.stringify(value, (_, each) => typeof each === "bigint" ? 0 : each) ?? "0");

test("targets have names of their own; seeds are numbers or random", () => {
  const names = targets.map(({ name }) => name);
  assert.is(new Set(names).size, names.length);
  for (const name of names) assert.match(name, /^[a-z0-9]+(-[a-z0-9]+)*$/);
  assert.equal([seedOf(undefined, 3), seedOf("", 3), seedOf("12", 3)], [3, 3, 12]);
  assert.ok(Number.isInteger(seedOf("random", 3)));
  assert.throws(() => seedOf("x", 3), /neither/);
});

test.run();
