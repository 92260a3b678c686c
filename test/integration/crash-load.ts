/**
 * Several NBD clients that read, write, zero and trim at random, each with several requests under way, and
 * come back when their server is gone. Each owns sectors of its own (so it knows what they must hold): whole
 * stretches of 64 KiB, and single sectors of stretches that all of them share.
 *
 * Whatever a client reads of its own must be what it last wrote. After its server was gone it first reads
 * what was not answered: each sector must be as last acknowledged or as sent later.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { command } from "../../src/nbd-server/protocol.ts";
import { Random } from "../engine/memory.ts";
import { fillSectors, type History, sectorBytes } from "../helpers/sectors.ts";
import { NbdClient } from "./nbd-client.ts";

export interface LoadOptions {
  readonly socket: string;
  readonly history: History;
  readonly seed: number;
  readonly clients?: number;
  /** Requests under way per client. */
  readonly depth?: number;
  /** Of 100 requests, how many flushes; writes are never flushed otherwise. Default: none. */
  readonly flushPercent?: number;
}

/** The server is gone; whether what was under way has been done is not known. */
class ConnectionLost extends Error {}

/** The rest of the disk is left alone, so that there is something absent however long the load goes on. */
const reachOfDisk = 0.75;
const beyondGoal = 100;
const paceMs = 50;
const stretchSectors = 128;
const maxRequestSectors = 64;
const blockSectors = 8;

export class CrashLoad {
  readonly #options: LoadOptions;
  readonly #clients: number;
  #isStopping = false;
  #lastValue = 1;
  #acknowledged = 0;
  /** Full speed up to so many writes; slower beyond, so that the machine is free for what is tested. */
  #goal = 0;
  #reconnects = 0;
  #failure: Error | undefined;
  #waiters: (() => void)[] = [];
  readonly #connections = new Set<NbdClient>();
  readonly #running: Promise<void>[];

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#clients = options.clients ?? 3;
    this.#running = Array.from(
      { length: this.#clients },
      (_, number) =>
        this.#client(number).catch((error) => {
          this.#failure ??= error;
          this.#wake();
        }),
    );
  }

  /** Writes acknowledged so far. */
  get acknowledged(): number {
    return this.#acknowledged;
  }

  /** Waits until so many more writes have been acknowledged; many are under way then. */
  more(writes: number): Promise<void> {
    const goal = this.#acknowledged + writes;
    this.#goal = goal + beyondGoal;
    return this.#until(() => this.#acknowledged >= goal, () => `${goal} writes (${this.#acknowledged} now)`);
  }

  /** Waits until every client has connected once more, and has found what it must. Call it before the kill. */
  allConnect(): Promise<void> {
    const goal = this.#reconnects + this.#clients;
    const all = this.#until(() => this.#reconnects >= goal, () => `${this.#clients} clients back`);
    // It may be awaited much later.
    all.catch(() => {});
    return all;
  }

  /** Ends the clients; throws what any of them found wrong. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await Promise.all(this.#running);
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Ends the clients at once, whatever they wait for. */
  abandon(): void {
    this.#isStopping = true;
    for (const connection of this.#connections) connection.close();
  }

  async #until(isSo: () => boolean, what: () => string, timeoutMs = 60_000): Promise<void> {
    const deadline = setTimeout(() => {
      this.#failure ??= new Error(`seed ${this.#options.seed}: never: ${what()}`);
      this.#wake();
    }, timeoutMs);
    try {
      while (this.#failure === undefined && !isSo()) {
        await new Promise<void>((resolve) => this.#waiters.push(resolve));
      }
      if (this.#failure !== undefined) throw this.#failure;
    } finally {
      clearTimeout(deadline);
    }
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  async #client(number: number): Promise<void> {
    const { socket, seed } = this.#options;
    const random = new Random(seed * 31 + number);
    while (!this.#isStopping && this.#failure === undefined) {
      let connection: NbdClient;
      try {
        connection = await NbdClient.connect(socket);
      } catch {
        await sleep(20);
        continue;
      }
      this.#connections.add(connection);
      try {
        await this.#settle(connection, number);
        this.#reconnects++;
        this.#wake();
        const busy = new Set<readonly [number, number]>();
        const lanes = Array.from(
          { length: this.#options.depth ?? 4 },
          () => this.#lane(connection, number, random, busy),
        );
        for (const lane of await Promise.allSettled(lanes)) {
          if (lane.status === "rejected") throw lane.reason;
        }
      } catch (error) {
        if (!(error instanceof ConnectionLost)) throw error;
      } finally {
        connection.close();
        this.#connections.delete(connection);
      }
    }
  }

  /** Reads what was not answered when the server went away. */
  async #settle(connection: NbdClient, number: number): Promise<void> {
    for (const sector of this.#options.history.unsettled()) {
      if (this.#owner(sector) === number) await this.#read(connection, sector, 1);
    }
  }

  async #lane(
    connection: NbdClient,
    number: number,
    random: Random,
    busy: Set<readonly [number, number]>,
  ): Promise<void> {
    while (!this.#isStopping && this.#failure === undefined) {
      if (this.#acknowledged >= this.#goal) await sleep(paceMs);
      const range = this.#pick(number, random);
      const [first, count] = range;
      if ([...busy].some(([from, length]) => from < first + count && first < from + length)) {
        await new Promise<void>((resolve) => setImmediate(resolve));
        continue;
      }
      busy.add(range);
      try {
        await this.#one(connection, random, first, count);
      } finally {
        busy.delete(range);
      }
    }
  }

  /** Sectors of the client's own. */
  #pick(number: number, random: Random): [first: number, count: number] {
    const reach = this.#options.history.sectors * reachOfDisk;
    const group = random.below(Math.floor(reach / this.#groupSectors));
    const start = group * this.#groupSectors;
    if (random.chance(0.25)) {
      const shared = start + this.#clients * stretchSectors;
      return [shared + random.below(Math.floor(stretchSectors / this.#clients)) * this.#clients + number, 1];
    }
    const own = start + number * stretchSectors;
    const count = 1 + random.below(maxRequestSectors);
    const first = own + random.below(stretchSectors - count + 1);
    if (random.chance(0.5)) return [first, count];
    // Whole blocks.
    const from = Math.floor(first / blockSectors) * blockSectors;
    return [from, Math.ceil((first + count) / blockSectors) * blockSectors - from];
  }

  /** One stretch for each client, and one that they share. */
  get #groupSectors(): number {
    return (this.#clients + 1) * stretchSectors;
  }

  #owner(sector: number): number {
    const stretch = Math.floor(sector % this.#groupSectors / stretchSectors);
    return stretch < this.#clients ? stretch : sector % stretchSectors % this.#clients;
  }

  async #one(connection: NbdClient, random: Random, first: number, count: number): Promise<void> {
    const what = random.below(100);
    const { flushPercent = 0 } = this.#options;
    if (what < flushPercent) {
      await this.#ask(connection, { type: command.flush });
    } else if (what < flushPercent + 20) {
      await this.#read(connection, first, count);
    } else if (what < 90) {
      const value = ++this.#lastValue;
      const payload = fillSectors(new Uint8Array(count * sectorBytes), first, value);
      await this.#write(connection, first, count, value, { type: command.write, payload });
    } else {
      // A trim zeroes whole blocks; the rest of it may stay as it is, so only blocks are trimmed.
      const isBlocks = first % blockSectors === 0 && count % blockSectors === 0;
      const type = isBlocks && random.chance(0.5) ? command.trim : command.writeZeroes;
      await this.#write(connection, first, count, 0, { type, length: count * sectorBytes });
    }
  }

  async #write(
    connection: NbdClient,
    first: number,
    count: number,
    value: number,
    request: { readonly type: number; readonly payload?: Uint8Array; readonly length?: number },
  ): Promise<void> {
    this.#options.history.begin(first, count, value);
    await this.#ask(connection, { ...request, offset: first * sectorBytes });
    this.#options.history.acknowledge(first, count, value);
    this.#acknowledged++;
    this.#wake();
  }

  async #read(connection: NbdClient, first: number, count: number): Promise<void> {
    const { history, seed } = this.#options;
    const request = { type: command.read, offset: first * sectorBytes, length: count * sectorBytes };
    const problem = history.settle(first, await this.#ask(connection, request));
    if (problem !== undefined) throw new Error(`seed ${seed}: ${problem}`);
  }

  async #ask(
    connection: NbdClient,
    request: Parameters<NbdClient["request"]>[0],
  ): Promise<Buffer> {
    const { error, data } = await connection.request(request).catch((cause) => {
      throw new ConnectionLost("the server is gone", { cause });
    });
    if (error !== 0) {
      const { type, offset, length } = request;
      throw new Error(`seed ${this.#options.seed}: command ${type} at ${offset}, ${length}: error ${error}`);
    }
    return data;
  }
}
