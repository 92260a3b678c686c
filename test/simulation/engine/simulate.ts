/**
 * Runs one seed: attach, hand-off, everything that users and faults do, then peace: the faults end, everything
 * must come to rest, and the disk must hold what it has to.
 */
import { chaos, freeze, peace } from "./chaos.ts";
import { Wrong } from "./model.ts";
import { type Restriction, type Scenario, scenarioOf } from "./scenario.ts";
import { World } from "./world.ts";

export interface Outcome {
  readonly scenario: Scenario;
  /** What went wrong; undefined if nothing did. */
  readonly error: Error | undefined;
  readonly events: number;
  /** Simulated. */
  readonly milliseconds: number;
  /** How often each state, fault and request was reached. */
  readonly reached: ReadonlyMap<string, number>;
}

export async function runSeed(seed: number, restriction: Restriction = {}): Promise<Outcome> {
  const scenario = scenarioOf(seed, restriction);
  const world = new World(scenario);
  const onRejection = (error: unknown) => world.fail(new Wrong(`nobody handles: ${describe(error)}`));
  process.on("unhandledRejection", onRejection);
  let error: Error | undefined;
  try {
    await live(world);
  } catch (cause) {
    error = cause as Error;
  } finally {
    process.off("unhandledRejection", onRejection);
  }
  const { events, clock, faults } = world;
  return { scenario, error, events, milliseconds: clock.now(), reached: faults.reached };
}

async function live(world: World): Promise<void> {
  const { scenario, random } = world;
  world.start();
  chaos(world);
  for (const guest of world.guests) guest.begin();
  let isOver = false;
  world.clock.after(random.below(200), () => isOver = true);
  await world.run(() => isOver, "it is attached for a while");
  freeze(world);
  await world.run(() => !world.hasRequests, "the users have asked for everything");
  peace(world);
  const isQuiet = () =>
    world.engine?.volume.isSynced === true && world.faults.isNone && !world.engine.disk.hasFailed &&
    !world.isStopping &&
    world.guests.every((guest) => guest.inFlight === 0);
  await world.run(isQuiet, "all is answered and synced");
  await world.check();
  const isFaultless = ![...world.faults.reached.keys()].some((name) => /^fault|^killed|^restart/.test(name));
  if (isFaultless) world.rules.accounts(world.engine!);
  world.faults.count(isFaultless ? "seed without faults" : "seed with faults");

  // The source is gone: what is durable now is all there is.
  world.rules.isDetached = true;
  if (scenario.has.has("powerLoss")) {
    world.losePower();
  } else {
    const { engine } = world;
    void world.restart();
    await world.run(() => engine!.isAlive === false, "it stops in good order");
  }
  await world.run(() => world.engine?.volume.isSynced === true, "it is synced after the last start");
  await world.check();
}

function describe(error: unknown): string {
  return error instanceof Error ? error.stack ?? error.message : String(error);
}
