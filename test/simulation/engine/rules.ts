/** What must always hold and can be seen from outside while it runs; each is numbered as in docs/RELIABILITY.md. */
import { residency, type ResidencyMap } from "../../../src/engine/residency.ts";
import { readHeader, type ResidencyStore } from "../../../src/engine/residency-store.ts";
import { readMap } from "../../../src/engine/stored-status.ts";
import type { Lane } from "../../../src/engine/source.ts";
import { MemoryMapFile } from "../../engine/memory.ts";
import type { Media } from "./media.ts";
import { Wrong } from "./model.ts";
import type { Setting } from "./setting.ts";

/** An engine that runs. */
export interface Running {
  readonly store: ResidencyStore;
  readonly source: { close(): void };
}

export interface RulesWorld extends Setting {
  readonly durableMap: Media;
}

export class Rules {
  readonly #world: RulesWorld;
  /** Blocks that crossed the network in this life of the engine, while nothing kept them from being stored. */
  readonly #crossed = new WeakMap<Running, Uint8Array>();
  /** Something was written to the local disk: the hand-off must have been durable before. */
  #hasWritten = false;
  /** An engine has been there: the map has been made. */
  hasStarted = false;
  /** The source is gone for good. */
  isDetached = false;

  constructor(world: RulesWorld) {
    this.#world = world;
  }

  /** 1: nothing is written here before the hand-off. */
  mayWrite(store: ResidencyStore | undefined): void {
    if (store?.activated !== true) this.#wrong("1: a local write before the hand-off is durable");
    this.#hasWritten = true;
  }

  /** A new process has opened its map. */
  started({ store }: Running): void {
    this.hasStarted = true;
    if (this.#hasWritten && !store.activated) this.#wrong("6: the hand-off is forgotten after a local write");
    if (!store.activated && store.map.residentCount > 0) {
      this.#wrong("1: blocks are resident before the hand-off");
    }
  }

  /** Whether what comes may be kept. */
  asked({ store }: Running, lane: Lane, offset: number, length: number): boolean {
    if (this.isDetached) this.#wrong(`10: the source is read at ${offset} after everything was synced`);
    const { blockBytes, sizeBytes } = this.#world.scenario;
    if (
      offset % blockBytes !== 0 || ((offset + length) % blockBytes !== 0 && offset + length !== sizeBytes)
    ) {
      this.#wrong(`the source is read in parts of blocks: ${offset}, ${length}`);
    }
    if (lane === "sync" && !store.activated) this.#wrong("1: the sync runs before the hand-off");
    return store.activated;
  }

  /** 3: a block crosses once, unless what came could not be kept. */
  crossed(engine: Running, lane: Lane, offset: number, length: number): void {
    const { store } = engine;
    this.#world.faults.count(`crossed ${lane}`);
    const { blockBytes } = this.#world.scenario;
    let crossed = this.#crossed.get(engine);
    if (crossed === undefined) this.#crossed.set(engine, crossed = new Uint8Array(store.map.blockCount));
    const excused = this.#world.faults.excuse(0, "diskErrors", "diskFull", "mapFull");
    for (let block = offset / blockBytes; block < (offset + length) / blockBytes; block++) {
      if (crossed[block]++ > 0 && !excused) {
        this.#wrong(`3: block ${block} crosses the network a second time`);
      }
    }
  }

  /** 10: all is here, durably; a power failure right now would change nothing of that. */
  synced({ store, source }: Running): void {
    const { faults, random } = this.#world;
    faults.count("state synced");
    if (store.map.absentCount !== 0) this.#wrong("10: synced with absent blocks");
    if (store.map.find(residency.absent, 0) !== -1) this.#wrong("10: the count of absent blocks is wrong");
    if (this.#durableMap().find(residency.absent, 0) !== -1) {
      this.#wrong("10: synced, and the durable map has gaps");
    }
    if (random.chance(0.7)) {
      this.isDetached = true;
      source.close();
      faults.count("source detached");
    }
  }

  /** In a run without faults every byte is accounted for. */
  accounts({ store }: Running): void {
    const { demandBytes, readaheadBytes, syncBytes, holeBytes, refetchedBytes } = store.counters;
    const { map } = store;
    const { blockBytes, sizeBytes } = this.#world.scenario;
    let crossedBytes = 0;
    for (let block = 0; block < map.blockCount; block++) {
      if (map.hasCrossed(block)) crossedBytes += Math.min(blockBytes, sizeBytes - block * blockBytes);
    }
    const counted = demandBytes + readaheadBytes + syncBytes + holeBytes;
    if (refetchedBytes !== 0) this.#wrong(`3: ${refetchedBytes} bytes counted as fetched again`);
    if (counted !== crossedBytes) this.#wrong(`3: ${counted} bytes counted, ${crossedBytes} crossed`);
  }

  /** 6: a map that was just opened takes for durable only what is. */
  opened({ map, dirtyPageCount }: ResidencyStore): void {
    if (dirtyPageCount > 0) return;
    const durable = this.#durableMap();
    for (let block = 0; block < map.blockCount; block++) {
      if (durable.stateOf(block) !== map.stateOf(block)) {
        this.#wrong(`6: block ${block} is not marked durably`);
      }
    }
  }

  #durableMap(): ResidencyMap {
    const file = new MemoryMapFile();
    file.bytes = this.#world.durableMap.durableBytes();
    return readMap(file, readHeader(file)!);
  }

  #wrong(what: string): never {
    const error = new Wrong(what);
    this.#world.fail(error);
    throw error;
  }
}
