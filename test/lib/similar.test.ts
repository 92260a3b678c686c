import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { editDistance, nearest } from "../../src/lib/similar.ts";

const test = suite("similar");

test("editDistance() counts insertions, deletions, replacements and swaps", () => {
  const pairs: [string, string, number][] = [
    ["", "", 0],
    ["", "abc", 3],
    ["verify", "verfiy", 1],
    ["verify", "veriffy", 1],
    ["verify", "vrify", 1],
    ["verify", "verily", 1],
    ["kitten", "sitting", 3],
    ["ca", "abc", 3],
  ];
  for (const [from, to, distance] of pairs) assert.is(editDistance(from, to), distance, `${from} ${to}`);
});

test("editDistance() is symmetric, zero for equals only, and at most the longer length", () => {
  fc.assert(fc.property(fc.string({ maxLength: 12 }), fc.string({ maxLength: 12 }), (a, b) => {
    const distance = editDistance(a, b);
    assert.is(distance, editDistance(b, a));
    assert.is(distance === 0, a === b);
    assert.ok(distance <= Math.max(a.length, b.length));
    assert.ok(distance >= Math.abs(a.length - b.length));
  }));
});

test("nearest() finds slips and beginnings, and nothing far away", () => {
  const words = ["migrate", "status", "activate", "pause", "resume", "limit", "cutover", "abort", "verify"];
  const slips: [string, string | undefined][] = [
    ["migarte", "migrate"],
    ["stauts", "status"],
    ["verfy", "verify"],
    ["mig", "migrate"],
    ["cut-over", "cutover"],
    ["status", "status"],
    ["xyz", undefined],
    ["", undefined],
    ["delete", undefined],
  ];
  for (const [word, expected] of slips) assert.is(nearest(word, words), expected, word);
  assert.is(nearest("a", []), undefined);
});

test.run();
