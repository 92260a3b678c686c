/** `node test/simulation/migration/replay.ts SEED [COUNT]`: runs seeds and prints what happens in them. */
import { loadCode } from "./bundle.ts";
import { explain } from "./report.ts";
import { runSeed } from "./run.ts";

const [first = 1, count = 1] = process.argv.slice(2).map(Number);
const code = await loadCode();
const ends = new Map<string, number>();
const startedMs = performance.now();
let bad = 0;
for (let seed = first; seed < first + count; seed++) {
  const result = await runSeed(code, seed);
  ends.set(result.end, (ends.get(result.end) ?? 0) + 1);
  if (count === 1) console.log([JSON.stringify(result.choices), ...result.trace].join("\n"));
  if (result.violations.length === 0) continue;
  bad++;
  console.log(explain(result));
}
const seconds = (performance.now() - startedMs) / 1000;
console.log(
  `${count} seeds in ${seconds.toFixed(1)} s, ${bad} bad; ${JSON.stringify(Object.fromEntries(ends))}`,
);
process.exit(bad === 0 ? 0 : 1);
