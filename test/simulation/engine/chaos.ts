/** What goes wrong, and when; the hand-off; and the end of all faults. */
import type { Fault } from "./faults.ts";
import { Wrong } from "./model.ts";
import type { Feature } from "./scenario.ts";
import type { World } from "./world.ts";

type Event = (world: World) => void;

/** A fault that lasts for a while. */
const lasting = (fault: Fault, longestMs: number): Event => (world) => {
  // Over and over again it would never end.
  if (world.faults.has(fault)) return;
  world.beginFault(fault);
  world.clock.after(world.random.next() * longestMs, () => world.endFault(fault));
};

const events: Partial<Readonly<Record<Feature, Event>>> = {
  outages: lasting("outages", 20_000),
  diskErrors: lasting("diskErrors", 30),
  diskFull: lasting("diskFull", 300),
  syncErrors: lasting("syncErrors", 60),
  mapFull: lasting("mapFull", 50),
  stalls: lasting("stalls", 200),
  mediumErrors(world) {
    const { bad, bytes } = world.source;
    const sector = world.random.below(bytes.length / 512);
    bad.add(sector);
    world.clock.after(world.random.next() * 1000, () => bad.delete(sector));
  },
  crashes(world) {
    const { random } = world;
    // At any moment; before one of the next writes of its map; again while it starts.
    if (random.chance(0.5)) world.kill("at any moment", random.chance(0.3) ? random.below(8) : Infinity);
    else if (world.life !== undefined) world.life.writesLeft = random.below(12);
  },
  powerLoss: (world) => world.losePower(),
  restarts: (world) => void world.restart().catch((error) => world.fail(error)),
  rateLimit(world) {
    world.bytesPerSecond = world.random.chance(0.3)
      ? undefined
      : world.scenario.sizeBytes * world.random.below(20) / 4 + 10_000;
    world.engine?.volume.sync.setRate(world.bytesPerSecond ?? Infinity);
  },
  pauses(world) {
    world.isPaused = !world.isPaused;
    if (world.isPaused) world.engine?.volume.sync.pause();
    else world.engine?.volume.resume();
    if (world.isPaused) world.faults.count("state paused");
  },
  sourceChanges: (world) => world.isFrozen || world.changeSource(),
};

const rare: readonly Feature[] = ["powerLoss", "restarts", "syncErrors", "outages"];

/** Sends the scenario's faults, one after the other, as long as there are requests. */
export function chaos(world: World): void {
  const { clock, random, scenario, faults } = world;
  const own = Object.entries(events).filter(([feature]) => scenario.has.has(feature as Feature));
  if (own.length === 0) return;
  const next = () => {
    clock.after(random.next() * 2 * scenario.faultMs, () => {
      if (!world.hasRequests) return;
      const [feature, event] = own[random.below(own.length)];
      if (!rare.includes(feature as Feature) || random.chance(0.4)) event!(world);
      noteSync(world);
      next();
    });
  };
  next();
  function noteSync({ engine }: World): void {
    if (engine !== undefined) faults.count(`sync ${engine.volume.sync.state}`);
  }
}

/** The source's user stops, and the volume takes over: by command, until it succeeds, or with the first write. */
export function freeze(world: World): void {
  world.isFrozen = true;
  if (world.scenario.activation === "first-write" && world.random.chance(0.5)) return;
  activate(world);
}

function activate(world: World): void {
  const { engine } = world;
  const again = () => void world.clock.after(10, () => activate(world));
  if (engine === undefined) return again();
  engine.volume.activate().then(undefined, (error) => {
    if (engine.isAlive && !world.isStopping && !world.faults.excuse(0, "mapFull")) {
      world.fail(new Wrong(`the hand-off is refused without a reason: ${error}`));
    }
    again();
  });
}

/** All faults end; whoever looks after the machine does what status tells. */
export function peace(world: World): void {
  const { clock, source } = world;
  world.isPaused = false;
  world.spare();
  const look = () => {
    source.bad.clear();
    const { engine } = world;
    if (engine === undefined) {
      world.start();
    } else if (engine.disk.hasFailed) {
      void world.restart().catch((error) => world.fail(error));
    } else if (!engine.volume.isSynced) {
      engine.volume.sync.setRate(Infinity);
      if (!engine.store.activated) activate(world);
      if (engine.volume.sync.state !== "running") engine.volume.resume();
    }
    clock.after(1000, look);
  };
  clock.after(0, look);
}
