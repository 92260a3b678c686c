/**
 * Every decoder with damaged and made-up input, for a moment each; the seed is fixed, so that a run repeats.
 * `DLSM_SEED=random` (or a number) looks elsewhere, `npm run fuzz -- --minutes 10` looks for long.
 */
import { suite } from "uvu";
import { oneSided, replayCommand, seedOf } from "./target.ts";
import { targets } from "./targets.ts";

const test = suite("fuzz");
const seed = seedOf(process.env.DLSM_SEED, 20_260_401);

for (const target of targets) {
  test(target.name, async () => {
    const report = await target.fuzz({ seed });
    if (report.failure !== undefined) {
      throw new Error(`${report.failure.message}\nagain: ${replayCommand(target.name, report.failure)}`);
    }
    const problem = oneSided(target, report);
    if (problem !== undefined) throw new Error(`${problem} (seed ${seed})`);
  });
}

test.run();
