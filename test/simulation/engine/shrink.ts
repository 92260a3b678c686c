/** Makes a seed that fails small: without features that it does not need, and with few requests. */
import { type Restriction, scenarioOf } from "./scenario.ts";
import { type Outcome, runSeed } from "./simulate.ts";

export interface Small extends Restriction {
  readonly seed: number;
  readonly without: readonly string[];
  readonly outcome: Outcome;
}

/** What still fails, whatever the reason. A seed that does not fail is given back as it is. */
export async function shrink(seed: number): Promise<Small> {
  let small: Small = { seed, without: [], outcome: await runSeed(seed) };
  if (small.outcome.error === undefined) return small;
  const attempt = async (restriction: Restriction & { readonly without: readonly string[] }) => {
    const outcome = await runSeed(seed, restriction);
    if (outcome.error !== undefined) small = { seed, ...restriction, outcome };
    return outcome.error !== undefined;
  };
  // Again as long as it helps: what one feature needs may be gone with another.
  for (let isSmaller = true; isSmaller;) {
    isSmaller = false;
    for (const feature of scenarioOf(seed, small).has) {
      const without = [...small.without, feature];
      if (await attempt({ ...small.requests === undefined ? {} : { requests: small.requests }, without })) {
        isSmaller = true;
      }
    }
    const requests = small.requests ?? small.outcome.scenario.requests;
    for (const fewer of [Math.floor(requests / 2), requests - 1]) {
      if (fewer < 1 || !await attempt({ without: small.without, requests: fewer })) continue;
      isSmaller = true;
      break;
    }
  }
  return small;
}

/** The command that runs it again. */
export function replayCommand({ seed, without, requests }: Small): string {
  const parts = [`npm run simulate -- --seed ${seed}`];
  if (without.length > 0) parts.push(`--without ${without.join(",")}`);
  if (requests !== undefined) parts.push(`--requests ${requests}`);
  return parts.join(" ");
}
