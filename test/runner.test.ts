import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type FileRun, judge } from "./helpers/verdict.ts";

const test = suite("runner");
const summary = (total: number, passed: number, skipped = 0) =>
  `\n  Total:     ${total}\n  Passed:    ${passed}\n  Skipped:   ${skipped}\n  Duration:  1.00ms\n`;
const source = `const test = suite("x");\ntest.run();`;
const run = (over: Partial<FileRun>): FileRun => ({
  name: "x.test.ts",
  source,
  output: summary(2, 2),
  code: 0,
  signal: null,
  timedOut: false,
  seconds: 1,
  ...over,
});

test("a clean run passes and is counted", () => {
  assert.equal(judge(run({})).problem, undefined);
  assert.is(judge(run({})).passed, 2);
});

test("every known false green is refused", () => {
  assert.match(judge(run({ code: 1 })).problem!, "exit code 1");
  assert.match(judge(run({ code: null, signal: "SIGSEGV" })).problem!, "SIGSEGV");
  assert.match(judge(run({ output: summary(2, 1) })).problem!, "1 of 2");
  assert.match(judge(run({ output: "" })).problem!, "summaries");
  assert.match(judge(run({ output: summary(0, 0) })).problem!, "no test");
  assert.match(judge(run({ timedOut: true })).problem!, "killed");
  assert.match(judge(run({ source: `const test = suite("x");` })).problem!, "run()");
  assert.match(judge(run({ source: `${source}\nconst other = suite("y");` })).problem!, "run()");
  assert.match(judge(run({ source: `${source}\n  test.only("a")` })).problem!, "only");
});

test("skips are counted apart and never as passed", () => {
  const result = judge(run({ output: `SKIPPED a: needs fio\n${summary(1, 1, 1)}` }));
  assert.is(result.passed, 1);
  assert.is(result.skipped, 1);
  assert.equal(result.skipReasons, ["a: needs fio"]);
});

test.run();
