/** The two files of the residency map. Their process can be killed before any single write of either. */
import type { MapFile } from "../../../src/engine/map-file.ts";
import { type DiskWorld, failure } from "./disk.ts";
import type { Media } from "./media.ts";

export class Killed extends Error {}

export interface MapWorld extends DiskWorld {
  /** Called before each write; throws Killed when the process is (or has been) killed. True: it cannot fail. */
  beforeWrite(): boolean;
}

export class SimMapFile implements MapFile {
  readonly #media: Media;
  readonly #world: MapWorld;
  readonly #isDurable: boolean;

  constructor(media: Media, world: MapWorld, isDurable: boolean) {
    this.#media = media;
    this.#world = world;
    this.#isDurable = isDurable;
  }

  read(offset: number, into: Uint8Array): void {
    this.#media.read(offset, into);
  }

  writeNow(offset: number, data: Uint8Array): void {
    if (!this.#world.beforeWrite()) this.#mayBeFull();
    this.#media.store(offset, data);
  }

  async write(offset: number, data: Uint8Array): Promise<void> {
    await this.#delay();
    this.writeNow(offset, data);
  }

  async sync(): Promise<void> {
    const covered = this.#media.covered();
    await this.#delay();
    this.#world.beforeWrite();
    this.#mayBeFull();
    this.#media.settle(covered);
  }

  clear(): void {
    this.#world.beforeWrite();
    this.#media.clear();
  }

  close(): void {}

  #mayBeFull(): void {
    const { faults, random } = this.#world;
    if (!faults.has("mapFull") || !random.chance(0.5)) return;
    faults.meet("mapFull");
    faults.count(this.#isDurable ? "fault durable map" : "fault live map");
    throw failure(random.chance(0.5) ? "ENOSPC" : "EIO");
  }

  async #delay(): Promise<void> {
    const { clock, random, diskMs } = this.#world;
    await clock.sleep(random.next() * 2 * diskMs);
    this.#world.beforeWrite();
  }
}
