/** A user of the volume: several requests at once, of every kind, and what came of them. */
import type { Fault } from "./faults.ts";
import { grainBytes, Model, type Pending, Wrong } from "./model.ts";
import type { EngineProcess } from "./process.ts";
import type { Feature } from "./scenario.ts";
import type { Setting } from "./setting.ts";

type Kind = Extract<Feature, "reads" | "writes" | "trims" | "zeroes" | "flushes" | "prefetches" | "queries">;

const weights: Readonly<Record<Kind, number>> = {
  reads: 8,
  writes: 8,
  trims: 2,
  zeroes: 2,
  flushes: 3,
  prefetches: 1,
  queries: 1,
};

/** A whole-block write waits for the local disk only: longer than any of its delays, shorter than any outage. */
const patienceMs = 3_000;

export interface GuestWorld extends Setting {
  readonly engine: EngineProcess | undefined;
  readonly hasRequests: boolean;
  /** Writing is for after the hand-off, or waits for it. */
  readonly mayWrite: boolean;
  /** The engine is being stopped: what is under way may be refused. */
  readonly isStopping: boolean;
  takeRequest(): boolean;
}

export class Guest {
  readonly #world: GuestWorld;
  readonly #mostInFlight: number;
  #inFlight = 0;
  /** Before the next request. */
  #isThinking = false;
  /** Where it reads on, one request after the other. */
  #cursor = 0;

  constructor(world: GuestWorld) {
    this.#world = world;
    this.#mostInFlight = 1 + world.random.below(4);
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** What was under way got no answer. */
  engineDied(): void {
    this.#inFlight = 0;
    if (!this.#isThinking) this.#next();
  }

  /** Until there are no requests left to make. */
  begin(): void {
    this.#isThinking = true;
    const { clock, random, scenario } = this.#world;
    clock.after(random.next() * 2 * scenario.thinkMs, () => {
      const { engine } = this.#world;
      if (engine !== undefined && this.#world.takeRequest()) void this.#request(engine);
      this.#next();
    });
  }

  #next(): void {
    this.#isThinking = this.#inFlight < this.#mostInFlight && this.#world.hasRequests;
    if (this.#isThinking) this.begin();
  }

  async #request(engine: EngineProcess): Promise<void> {
    const kind = this.#kind();
    if (kind === undefined) return;
    this.#inFlight++;
    const { faults } = this.#world;
    try {
      await this.#do(kind, engine);
      if (engine.isAlive) faults.count(`done ${kind}`);
    } catch (error) {
      if (engine.isAlive) this.#world.fail(error as Error);
    } finally {
      if (engine.isAlive) this.#inFlight--;
      if (engine.isAlive && !this.#isThinking) this.#next();
    }
  }

  #kind(): Kind | undefined {
    const { random, scenario, mayWrite } = this.#world;
    const kinds = (Object.keys(weights) as Kind[]).filter((kind) =>
      scenario.has.has(kind) && (mayWrite || kind === "reads" || kind === "prefetches" || kind === "flushes")
    );
    let at = random.next() * kinds.reduce((sum, kind) => sum + weights[kind], 0);
    return kinds.find((kind) => (at -= weights[kind]) < 0);
  }

  #do(kind: Kind, engine: EngineProcess): Promise<void> {
    switch (kind) {
      case "reads":
        return this.#read(engine);
      case "writes":
        return this.#write(engine);
      case "trims":
        return this.#trim(engine);
      case "zeroes":
        return this.#zero(engine);
      case "flushes":
        return this.#flush(engine);
      case "prefetches":
        return this.#prefetch(engine);
      case "queries":
        return this.#query(engine);
    }
  }

  async #read(engine: EngineProcess): Promise<void> {
    const { model } = this.#world;
    const { from, to } = this.#range(this.#world.random.chance(0.4));
    const read = model.beginRead();
    let pieces: readonly Uint8Array[];
    try {
      pieces = await engine.volume.read(from * grainBytes, (to - from) * grainBytes);
    } catch (error) {
      if (!engine.isAlive) return;
      model.forgetRead(read);
      return this.#refused("a read", error, read, "mediumErrors", "diskErrors", "outages");
    }
    if (engine.isAlive) model.endRead(read, from, new Uint8Array(Buffer.concat(pieces)));
  }

  async #write(engine: EngineProcess): Promise<void> {
    const { model, random } = this.#world;
    const { from, to } = this.#range(false, random.chance(0.5));
    const content = model.newContent(`write ${model.tick}`);
    const data = Model.bytesOf(content, from, to);
    const isFua = this.#isFua();
    await this.#change(
      engine,
      "write",
      content,
      from,
      to,
      isFua,
      () => engine.volume.write(from * grainBytes, data, isFua),
    );
  }

  async #trim(engine: EngineProcess): Promise<void> {
    const { from, to } = this.#range(false);
    const { blockBytes, sizeBytes } = this.#world.scenario;
    const perBlock = blockBytes / grainBytes;
    // Whole blocks become zero; the disk's last one is whole where the disk ends.
    const first = Math.ceil(from / perBlock) * perBlock;
    const isAtEnd = to * grainBytes === sizeBytes;
    const last = isAtEnd ? to : Math.floor(to / perBlock) * perBlock;
    const isFua = this.#isFua();
    await this.#change(
      engine,
      "trim",
      0,
      first,
      Math.max(first, last),
      isFua,
      () => engine.volume.trim(from * grainBytes, (to - from) * grainBytes, isFua),
    );
  }

  async #zero(engine: EngineProcess): Promise<void> {
    const { random } = this.#world;
    const { from, to } = this.#range(false, random.chance(0.5));
    const options = { noHole: random.chance(0.5), fastZero: random.chance(0.2), fua: this.#isFua() };
    await this.#change(
      engine,
      "zeroes",
      0,
      from,
      to,
      options.fua,
      () => engine.volume.writeZeroes(from * grainBytes, (to - from) * grainBytes, options),
    );
  }

  async #change(
    engine: EngineProcess,
    name: string,
    content: number,
    from: number,
    to: number,
    isFua: boolean,
    work: () => Promise<void>,
  ): Promise<void> {
    const { model, clock, faults } = this.#world;
    const write = model.begin(`${name} ${model.tick} of ${from} to ${to}`, content, from, to);
    const startedMs = clock.now();
    const isReady = engine.store.activated;
    try {
      await work();
    } catch (error) {
      if (!engine.isAlive) return;
      if ((error as { code?: string }).code === "ENOTSUP") return model.undo(write);
      model.end(write, false);
      if (isFua && engine.disk.hasFailed) return;
      // One that waited for the hand-off may hear of what went wrong before it came.
      const since = isReady ? write : { begin: 0 };
      return this.#refused(
        `a ${name}`,
        error,
        since,
        "diskErrors",
        "diskFull",
        "mapFull",
        "syncErrors",
        "mediumErrors",
        "outages",
      );
    }
    if (!engine.isAlive) return;
    model.end(write, true);
    if (isFua) write.isFlushed = true;
    const isSlow = clock.now() - startedMs > patienceMs;
    if (isReady && this.#isWhole(from, to) && isSlow && !faults.excuse(write.begin, "stalls")) {
      throw new Wrong(`4: a ${name} of whole blocks took ${clock.now() - startedMs} ms`);
    }
  }

  async #flush(engine: EngineProcess): Promise<void> {
    const { model } = this.#world;
    const flush = model.beginFlush();
    try {
      await engine.volume.flush();
    } catch (error) {
      if (!engine.isAlive) return;
      if (engine.disk.hasFailed) return;
      return this.#refused("a flush", error, flush, "syncErrors", "mapFull");
    }
    if (engine.isAlive) model.endFlush(flush);
  }

  async #prefetch(engine: EngineProcess): Promise<void> {
    const { from, to } = this.#range(false);
    const { begin } = this.#world.model.beginFlush();
    try {
      await engine.volume.prefetch(from * grainBytes, (to - from) * grainBytes);
    } catch (error) {
      if (!engine.isAlive) return;
      this.#refused(
        "a prefetch",
        error,
        { begin },
        "mediumErrors",
        "diskErrors",
        "diskFull",
        "mapFull",
        "outages",
      );
    }
  }

  /** What it says of the blocks is true: what counts as zero reads as zero. */
  async #query(engine: EngineProcess): Promise<void> {
    const { model } = this.#world;
    const { from, to } = this.#range(false);
    const read = model.beginRead();
    const extents = await engine.volume.blockStatus(
      "base:allocation",
      from * grainBytes,
      (to - from) * grainBytes,
      1 + this.#world.random.below(8),
    );
    if (!engine.isAlive) return;
    let at = from;
    for (const { lengthBytes, flags } of extents) {
      const grains = lengthBytes / grainBytes;
      if (flags !== 0) model.endRead(read, at, Model.bytesOf(0, at, at + grains));
      at += grains;
    }
    model.forgetRead(read);
  }

  /** An error that nothing explains is one of the engine's. */
  #refused(what: string, error: unknown, { begin }: Pending, ...excuses: readonly Fault[]): void {
    const { faults, scenario, isStopping } = this.#world;
    faults.count(`refused ${what}`);
    if (isStopping || faults.excuse(begin, ...excuses)) return;
    if (scenario.has.has("sourceTimeout") && /did not answer/.test(String(error))) return;
    throw new Wrong(`${what} is refused without a reason: ${error}`);
  }

  /** Grains; at times beside the one before, at times whole blocks. */
  #range(isSequential: boolean, isWhole = false): { from: number; to: number } {
    const { random, scenario: { sizeBytes, busy, blockBytes, longest } } = this.#world;
    const all = sizeBytes / grainBytes;
    const perBlock = blockBytes / grainBytes;
    const anywhere = () => busy.from / grainBytes + random.below((busy.to - busy.from) / grainBytes);
    let from = isSequential ? this.#cursor % all : anywhere();
    let to = Math.min(all, from + 1 + random.below(longest));
    if (isWhole) {
      from -= from % perBlock;
      to = Math.min(all, from + perBlock * (1 + random.below(Math.max(1, Math.floor(longest / perBlock)))));
    }
    this.#cursor = to;
    return { from, to };
  }

  #isWhole(from: number, to: number): boolean {
    const { sizeBytes, blockBytes } = this.#world.scenario;
    const isEdge = (grain: number) =>
      (grain * grainBytes) % blockBytes === 0 || grain * grainBytes === sizeBytes;
    return isEdge(from) && isEdge(to);
  }

  #isFua(): boolean {
    return this.#world.scenario.has.has("fua") && this.#world.random.chance(0.3);
  }
}
