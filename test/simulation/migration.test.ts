/**
 * Migrations under every fault there is, simulated: the real commands, state machine and roles over files, processes
 * and a network in memory (migration/world.ts). However it goes, resume or abort ends it: done or cleanly aborted,
 * nothing that was acknowledged lost, the source untouched, nothing left behind.
 */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { loadCode } from "./migration/bundle.ts";
import { explain } from "./migration/report.ts";
import { runSeed } from "./migration/run.ts";
import { type Sweep, sweep } from "./migration/sweep.ts";

const test = suite("simulated migrations");
const seeds = 200;

const code = await loadCode();

test("a run is the same each time", async () => {
  const [one, other] = [await runSeed(code, 7), await runSeed(code, 7)];
  assert.equal(one.trace, other.trace);
});

test(`${seeds} seeds: faults, and the user's commands, at any time`, async () => {
  const ends = new Set<string>();
  for (let seed = 1; seed <= seeds; seed++) {
    const result = await runSeed(code, seed);
    assert.equal(result.violations, [], explain(result));
    ends.add(result.end);
  }
  assert.equal([...ends].sort(), ["aborted", "done", "never begun"], "all ends are reached");
});

const ab = { host: "a", other: "b", forMs: 5_000 };
const sweeps: readonly Sweep[] = [
  { name: "who is in it is killed", fault: { ...ab, kind: "kill it" }, every: 1 },
  { name: "the source's host loses its power", fault: { ...ab, kind: "power, lossy" }, every: 15 },
  {
    name: "the destination's host loses its power",
    fault: { ...ab, host: "b", kind: "power, lossy" },
    every: 15,
  },
  {
    name: "the command cannot reach the source, and is not told",
    fault: { host: "c", other: "a", forMs: 25_000, kind: "cut silently" },
    every: 15,
  },
  {
    name: "the command cannot reach the destination",
    fault: { host: "c", other: "b", forMs: 60_000, kind: "cut" },
    every: 15,
  },
];
for (const each of sweeps) {
  test(`one fault, at each ${each.every === 1 ? "" : `${each.every}th `}moment: ${each.name}`, async () => {
    const { bad, count } = await sweep(code, each);
    assert.ok(count > 20);
    assert.equal(bad.map(({ violations }) => violations), [], bad[0] && explain(bad[0]));
  });
}

test.run();
