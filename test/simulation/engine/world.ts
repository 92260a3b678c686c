/**
 * One seed's world: the machine with its local disk and map files, the source, the users, and all that goes
 * wrong. Everything that happens is drawn from the seed, so that the same seed always goes the same way.
 */
import { Random } from "../../engine/memory.ts";
import { LiveMapError, MapError, SyncFailedError } from "../../../src/engine/residency-store.ts";
import { SimClock } from "../clock.ts";
import type { SimDisk } from "./disk.ts";
import { type Fault, Faults } from "./faults.ts";
import { Guest } from "./guest.ts";
import { Media } from "./media.ts";
import { grainBytes, Model, Wrong } from "./model.ts";
import { EngineProcess, type Life } from "./process.ts";
import { Rules } from "./rules.ts";
import type { Scenario } from "./scenario.ts";
import { makeSource, type SourceDisk } from "./source.ts";

/** Events of one seed at most: more means that something goes round in circles. */
const mostEvents = 400_000;

export class World {
  readonly scenario: Scenario;
  readonly random: Random;
  readonly clock = new SimClock();
  readonly model: Model;
  readonly faults: Faults;
  readonly rules: Rules;
  readonly source: SourceDisk;
  readonly disk: Media;
  readonly durableMap = new Media(new Uint8Array(0));
  readonly liveMap = new Media(new Uint8Array(0));
  readonly guests: readonly Guest[];
  /** The process that serves; undefined while none does. */
  engine: EngineProcess | undefined;
  life: Life | undefined;
  openDisk: SimDisk | undefined;
  boots = 0;
  /** The user of the disk has stopped on the source. */
  isFrozen = false;
  /** By the user: the sync rests. */
  isPaused = false;
  isStopping = false;
  bytesPerSecond: number | undefined;
  /** What was not flushed is given up: a sync of the disk failed. */
  isForced = false;
  events = 0;
  #requestsLeft: number;
  #failure: Error | undefined;
  #isStarting = false;
  #writesLeft = Infinity;
  #wakeReachable: (() => void)[] = [];

  constructor(scenario: Scenario) {
    const { seed, sizeBytes } = scenario;
    this.scenario = scenario;
    this.random = new Random(seed ^ 0x5eed);
    this.model = new Model(sizeBytes);
    this.faults = new Faults(() => this.model.tick);
    this.rules = new Rules(this);
    this.source = makeSource(scenario, this.model, this.random);
    this.disk = new Media(
      scenario.localZero ? new Uint8Array(sizeBytes) : new Uint8Array(sizeBytes).fill(0xdd),
    );
    this.guests = Array.from({ length: scenario.clients }, () => new Guest(this));
    this.#requestsLeft = scenario.requests;
    if (scenario.has.has("rateLimit")) this.bytesPerSecond = sizeBytes * this.random.below(20) / 4 + 10_000;
  }

  get hasRequests(): boolean {
    return this.#requestsLeft > 0;
  }

  /** Writing is for after the hand-off; where the command makes it, writes that come before it wait. */
  get mayWrite(): boolean {
    return this.isFrozen || this.scenario.activation === "explicit";
  }

  takeRequest(): boolean {
    return this.#requestsLeft-- > 0;
  }

  takeWritesLeft(): number {
    const left = this.#writesLeft;
    this.#writesLeft = Infinity;
    return left;
  }

  fail(error: Error): void {
    this.#failure ??= error;
  }

  /** Resolves when the source can be reached. */
  reachable(): Promise<void> {
    if (!this.faults.has("outages")) return Promise.resolve();
    this.faults.meet("outages");
    return new Promise((resolve) => this.#wakeReachable.push(resolve));
  }

  beginFault(fault: Fault): void {
    this.faults.begin(fault);
  }

  endFault(fault: Fault): void {
    this.faults.end(fault);
    if (fault !== "outages" || this.faults.has("outages")) return;
    const waiting = this.#wakeReachable;
    this.#wakeReachable = [];
    for (const wake of waiting) wake();
  }

  /** Kills the engine's process, or what is about to become one. The map's next start may be cut short, too. */
  kill(when: string, writesUntilNextKill = Infinity): void {
    if (this.life === undefined || this.life.isDead) return;
    this.faults.count(`killed ${when}`);
    this.#noteState();
    this.life.isDead = true;
    this.isStopping = false;
    this.openDisk?.die();
    this.engine = undefined;
    this.model.engineDied();
    for (const guest of this.guests) guest.engineDied();
    this.#writesLeft = writesUntilNextKill;
    this.clock.after(this.random.next() * 50, () => this.start());
  }

  /** Of the map in memory nothing is left, and of what was not synced any part. */
  losePower(): void {
    this.kill("by a power failure");
    this.faults.count("fault powerLoss");
    this.#failPower();
  }

  #failPower(): void {
    this.boots++;
    this.disk.losePower(this.random);
    this.durableMap.losePower(this.random);
    // Memory; or a folder that somebody chose.
    if (this.random.chance(0.7)) this.liveMap.clear();
    else this.liveMap.losePower(this.random);
    this.model.powerFailed();
  }

  /** From now on nobody kills it. */
  spare(): void {
    this.#writesLeft = Infinity;
    if (this.life !== undefined) this.life.writesLeft = Infinity;
  }

  /** Starts the engine; tries again as long as it cannot. */
  start(): void {
    if (this.#isStarting || this.engine !== undefined) return;
    this.#isStarting = true;
    void EngineProcess.start(this).then(
      (engine) => {
        this.#isStarting = false;
        if (!engine.isAlive) return this.start();
        this.engine = engine;
        this.isForced = false;
        this.rules.started(engine);
      },
      (error: Error) => {
        this.#isStarting = false;
        this.#cannotStart(error);
      },
    ).catch((error) => this.fail(error));
  }

  /** The engine stops in good order and starts again. */
  async restart(): Promise<void> {
    const { engine } = this;
    if (engine === undefined || this.isStopping) return;
    this.isStopping = true;
    this.faults.count("restarted");
    const flush = this.model.beginFlush();
    try {
      await engine.stop();
      if (engine.isAlive && this.guests.every((guest) => guest.inFlight === 0)) this.model.endFlush(flush);
    } catch (error) {
      if (engine.isAlive) this.faults.count("stopped in disorder");
      const isExplained = engine.disk.hasFailed || this.faults.excuse(flush.begin, "mapFull", "syncErrors");
      if (engine.isAlive && !isExplained) this.fail(error as Error);
    }
    if (engine.isAlive) this.kill("after it stopped");
  }

  /** Lets time pass until it is so; throws what went wrong, or if nothing happens any more. */
  async run(isDone: () => boolean, what: string): Promise<void> {
    while (!isDone()) {
      if (++this.events > mostEvents) throw new Wrong(`endless: ${what}; ${this.#state()}`);
      if (!await this.clock.step()) throw new Wrong(`nothing happens any more: ${what}; ${this.#state()}`);
      if (this.#failure !== undefined) throw this.#failure;
    }
  }

  /** The whole disk is as the model says: read by a client. */
  async check(): Promise<void> {
    const { sizeBytes } = this.scenario;
    const read = this.model.beginRead();
    let bytes: Uint8Array | undefined;
    void this.engine!.volume.read(0, sizeBytes).then(
      (pieces) => bytes = new Uint8Array(Buffer.concat(pieces)),
      (error) => this.fail(error),
    );
    await this.run(() => bytes !== undefined, "the whole disk is read");
    this.model.endRead(read, 0, bytes!);
  }

  /** The source's user changes something there, before the hand-off. */
  changeSource(): void {
    const all = this.scenario.sizeBytes / grainBytes;
    const from = this.random.below(all);
    const to = Math.min(all, from + 1 + this.random.below(40));
    const content = this.model.newContent(`source change ${this.model.tick}`);
    this.source.write(from * grainBytes, Model.bytesOf(content, from, to));
    this.model.done(`source change of ${from} to ${to}`, content, from, to);
    this.faults.count("source changed");
  }

  #cannotStart(error: Error): void {
    // A killed one, or one whose map cannot be written at the moment.
    const isGivenUp = error instanceof SyncFailedError || (this.isForced && error instanceof LiveMapError);
    if (isGivenUp) return this.#goOnWithoutUnflushed();
    if (error instanceof MapError && !this.rules.hasStarted) return this.#makeAnew();
    const isExplained = this.life!.isDead || this.faults.excuse(0, "mapFull");
    if (!isExplained) return this.fail(error);
    this.life!.isDead = true;
    this.faults.count("start failed");
    this.clock.after(20, () => this.start());
  }

  /** As status advises: the machine is restarted, or the engine, with --force. */
  #goOnWithoutUnflushed(): void {
    this.life!.isDead = true;
    if (this.random.chance(0.5)) {
      this.#failPower();
    } else {
      this.faults.count("forced after a failed sync");
      this.isForced = true;
      this.disk.evict();
      this.model.powerFailed();
    }
    this.clock.after(20, () => this.start());
  }

  /** The power failed while the map was being made: then the migration is begun anew. */
  #makeAnew(): void {
    this.faults.count("map made anew");
    this.life!.isDead = true;
    this.durableMap.clear();
    this.clock.after(20, () => this.start());
  }

  #noteState(): void {
    const { engine } = this;
    if (engine === undefined) return this.faults.count("killed in the start");
    const state = !engine.store.activated ? "attached" : engine.volume.isSynced ? "synced" : "active";
    this.faults.count(`killed ${state}`);
    this.faults.count(`killed with the sync ${engine.volume.sync.state}`);
  }

  #state(): string {
    const { engine } = this;
    if (engine === undefined) return "no engine";
    const { volume, store } = engine;
    return `${store.map.absentCount} blocks absent, sync ${volume.sync.state}, last error ${volume.lastError}, ` +
      `${this.guests.reduce((sum, guest) => sum + guest.inFlight, 0)} requests under way`;
  }
}
