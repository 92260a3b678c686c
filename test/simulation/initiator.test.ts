/**
 * The real initiator over a simulated network, target and clock: some hundreds of runs, each from its seed.
 * A run that fails names its seed; `node test/simulation/initiator/replay.ts SEED` shows it step by step.
 */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { ways } from "./initiator/faults.ts";
import { runSeed } from "./initiator/scenario.ts";

const test = suite("the initiator, simulated");

/** Chosen so that all of them take about 6 s. */
const seeds = Array.from({ length: 200 }, (_, index) => index + 1);

/** What the seeds have to bring about, besides every way to answer a read. */
const events = [
  "another disk",
  "closed in the middle",
  "connection that never comes about",
  "cut",
  "flipped bit",
  "login in nonsense",
  "login refused",
  "login without an end",
  "ping of the target",
  "a read without an answer",
  "redirect",
  "refused connection",
  "a request without an answer",
  "slow answer",
  "stall for a while",
  "stall for ever",
  "window shut",
];

test("every read ends once, right or with the target's reason, whatever target and network do", async () => {
  const reached = new Set<string>();
  let resolved = 0;
  let reconnects = 0;
  for (const seed of seeds) {
    const outcome = await runSeed(seed);
    resolved += outcome.resolved;
    reconnects += outcome.reconnects;
    for (const what of outcome.reached.keys()) reached.add(what);
  }
  assert.equal([...events, ...Object.keys(ways)].filter((what) => !reached.has(what)), []);
  assert.ok(resolved > 10 * seeds.length && reconnects > seeds.length, `${resolved}, ${reconnects}`);
});

test("the same seed is the same run", async () => {
  for (const seed of [2, 3, 4]) {
    const [first, second] = [await runSeed(seed, { trace: true }), await runSeed(seed, { trace: true })];
    assert.ok(first.trace.length > 20);
    assert.equal(first.trace, second.trace);
  }
});

test.run();
