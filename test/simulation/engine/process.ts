/**
 * One life of the engine's process, from its start to its end: the real volume, map, queue and sync over
 * simulated disk, map files and source. Once it is dead, nothing of it has any effect.
 */
import { ResidencyStore } from "../../../src/engine/residency-store.ts";
import { Volume } from "../../../src/engine/volume.ts";
import { SimDisk } from "./disk.ts";
import { Killed, SimMapFile } from "./map-files.ts";
import { SimSource, type SourceDisk } from "./source.ts";
import type { Media } from "./media.ts";
import type { Rules } from "./rules.ts";
import type { Setting } from "./setting.ts";

const volumeId = "simulated";

/** The machine that it runs on. */
export interface Machine extends Setting {
  readonly rules: Rules;
  readonly source: SourceDisk;
  readonly disk: Media;
  readonly durableMap: Media;
  readonly liveMap: Media;
  readonly boots: number;
  readonly isPaused: boolean;
  readonly bytesPerSecond: number | undefined;
  life: Life | undefined;
  openDisk: SimDisk | undefined;
  reachable(): Promise<void>;
  kill(when: string): void;
  /** How long the next life may be, in writes to the map's files. */
  takeWritesLeft(): number;
  /** Whether the user gives up what was not flushed, for the engine to start. */
  readonly isForced: boolean;
}

export class EngineProcess {
  readonly volume: Volume;
  readonly store: ResidencyStore;
  readonly disk: SimDisk;
  readonly source: SimSource;
  readonly #life: Life;

  private constructor(world: Machine, store: ResidencyStore, disk: SimDisk, life: Life) {
    const { scenario } = world;
    this.#life = life;
    this.store = store;
    this.disk = disk;
    this.source = new SimSource(world.source, {
      clock: world.clock,
      random: world.random,
      faults: world.faults,
      sourceMs: scenario.sourceMs,
      reachable: () => world.reachable(),
      asked: (lane, offset, length) => this.isAlive && world.rules.asked(this, lane, offset, length),
      crossed: (lane, offset, length) => this.isAlive && world.rules.crossed(this, lane, offset, length),
    });
    this.volume = new Volume({
      geometry: scenario,
      source: this.source,
      disk,
      store,
      clock: {
        now: () => world.clock.now(),
        after: (delayMs, callback) => world.clock.after(delayMs, () => life.isDead || callback()),
      },
      activation: scenario.activation,
      demandBytes: scenario.demandBytes,
      sourceTimeoutMs: scenario.has.has("sourceTimeout") ? 300 : undefined,
      bytesPerSecond: world.bytesPerSecond,
      syncLimits: {
        chunkBytes: scenario.chunkBytes,
        fetches: scenario.syncFetches,
        inFlightBytes: scenario.chunkBytes * scenario.syncFetches,
        retryMs: 200,
      },
      fetchLimits: { demandFetches: scenario.demandFetches },
      onActivated: () => world.faults.count("state active"),
      onSynced: () => this.isAlive && world.rules.synced(this),
    });
  }

  /** Opens (or makes) the map and the volume. Rejects as the engine's start would. */
  static async start(world: Machine): Promise<EngineProcess> {
    const { scenario, clock, random, faults } = world;
    const life: Life = { isDead: false, writesLeft: world.takeWritesLeft(), sureWrites: 0 };
    world.life = life;
    let store: ResidencyStore | undefined;
    const shared = {
      clock,
      random,
      faults,
      diskMs: scenario.diskMs,
      mayWrite: () => world.rules.mayWrite(store),
      syncFailed: () => life.sureWrites = 1,
      beforeWrite: () => {
        if (life.sureWrites > 0 && !life.isDead) return life.sureWrites-- > 0;
        if (!life.isDead && life.writesLeft-- <= 0) world.kill("while it wrote its map");
        if (life.isDead) throw new Killed();
        return false;
      },
    };
    const disk = new SimDisk(world.disk, shared);
    world.openDisk = disk;
    const files = {
      durable: new SimMapFile(world.durableMap, shared, true),
      live: new SimMapFile(world.liveMap, shared, false),
    };
    const { sizeBytes, blockBytes } = scenario;
    const identity = { volumeId, sizeBytes, blockBytes, bootId: `boot ${world.boots}` };
    if (world.durableMap.bytes.length === 0) {
      files.live.clear();
      store = await ResidencyStore.create(files, { ...identity, localZero: scenario.localZero });
    } else {
      store = await ResidencyStore.open(files, identity, world.isForced);
    }
    if (life.isDead) throw new Killed();
    world.rules.opened(store);
    const engine = new EngineProcess(world, store, disk, life);
    if (store.activated && !world.isPaused) engine.volume.sync.start();
    if (world.isPaused) engine.volume.sync.pause();
    return engine;
  }

  get isAlive(): boolean {
    return !this.#life.isDead;
  }

  /** In good order, as far as that can be had. */
  async stop(): Promise<void> {
    this.volume.sync.close();
    this.source.close();
    await this.volume.close();
  }
}

/** Of a process: also before its engine has opened. */
export interface Life {
  isDead: boolean;
  /** Writes to its map files until it is killed. */
  writesLeft: number;
  /** Writes to them that nothing prevents. */
  sureWrites: number;
}
