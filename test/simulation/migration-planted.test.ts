/** The simulation of migrations finds what it is for: bugs planted in the real code, each within its seeds. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { loadCode } from "./migration/bundle.ts";
import { planted } from "./migration/planted.ts";
import { runSeed } from "./migration/run.ts";

const test = suite("planted in migrations");

for (const { name, changes, budget } of planted) {
  test(`found within ${budget} seeds: ${name}`, async () => {
    const code = await loadCode(changes);
    for (let seed = 1; seed <= budget; seed++) {
      const { violations } = await runSeed(code, seed);
      if (violations.length > 0) return;
    }
    assert.unreachable("it was not found");
  });
}

test.run();
