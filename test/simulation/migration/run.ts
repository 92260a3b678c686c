/** One seed, from its beginning to its end. */
import type { Code } from "./bundle.ts";
import { checkEnd, type End } from "./checks.ts";
import { finish } from "./finish.ts";
import { type Choices, choose, Scenario } from "./scenario.ts";
import { enter, World } from "./world.ts";

export interface Result {
  readonly seed: number;
  readonly violations: readonly string[];
  readonly trace: readonly string[];
  readonly moments: number;
  readonly end: End | "unfinished";
  readonly choices: Choices;
  /** Each moment that a fault could come at: host, process, what. */
  readonly places: readonly string[];
}

export interface RunOptions {
  /** In place of what the seed says. */
  readonly change?: (chosen: Choices) => Choices;
}

/** Runs one seed; deterministic. */
export async function runSeed(
  code: Code,
  seed: number,
  { change = (same) => same }: RunOptions = {},
): Promise<Result> {
  const world = new World(seed);
  world.code = code;
  enter(world);
  try {
    const choices = change(choose(world));
    const scenario = new Scenario(world, choices);
    await scenario.trouble();
    world.onMoment = () => {};
    world.mendAll();
    const isOver = await finish(scenario);
    const end = isOver ? checkEnd(scenario) : "unfinished";
    const { violations, trace, moments } = world;
    return { seed, violations, trace, moments, end, choices, places: scenario.places };
  } finally {
    enter(undefined);
  }
}
