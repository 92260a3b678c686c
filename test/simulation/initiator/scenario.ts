/**
 * One simulated run of the real initiator, all of it drawn from a seed: a session, reads of any place and size
 * at any time, some of them aborted, against a target and a network that misbehave for a while.
 *
 * What must hold, whatever happens: a read resolves with exactly the right bytes, or rejects with a reason
 * that the target gave; it ends once, and its buffer is not touched afterwards; all of them end soon after the
 * target has become sane; the initiator keeps to the target's window and to its own limits.
 */
import {
  IdentityError,
  type InitiatorOptions,
  ProtocolError,
  ScsiError,
  Session,
  SessionClosedError,
} from "../../../src/iscsi-initiator/mod.ts";
import { fillBlocks, type TargetDisk } from "../../iscsi-initiator/target-disk.ts";
import type { Random } from "../../engine/memory.ts";
import { ways } from "./faults.ts";
import { connectIn } from "./network.ts";
import { fingerprint, SimTarget } from "./target.ts";
import { World } from "./world.ts";

export interface Outcome {
  readonly seed: number;
  readonly reads: number;
  readonly resolved: number;
  readonly rejected: number;
  readonly reconnects: number;
  readonly mostInFlight: number;
  /** Simulated. */
  readonly durationMs: number;
  readonly reached: ReadonlyMap<string, number>;
  /** What happened, if it was asked for. */
  readonly trace: readonly string[];
}

/** After the target became sane everything has to end within this. */
const patienceMs = 600_000;
/** Longer than any seed takes; one that takes more goes round in circles. */
const maxSteps = 400_000;

class Read {
  readonly lba: number;
  readonly into: Uint8Array;
  readonly abort = new AbortController();
  state: "pending" | "resolved" | "rejected" = "pending";
  /** Of the buffer when the read ended. */
  fingerprint = "";

  constructor(lba: number, blocks: number) {
    this.lba = lba;
    this.into = new Uint8Array(blocks * 512).fill(0x55);
  }

  get blocks(): number {
    return this.into.length / 512;
  }
}

class Run {
  readonly #world: World;
  readonly #target: SimTarget;
  readonly #session: Session;
  readonly #reads: Read[] = [];
  readonly #maxTasks: number;
  readonly #swapsDisk: boolean;
  #resolvedBytes = 0;
  #isClosing = false;

  constructor(seed: number, isTraced: boolean) {
    const world = new World(seed, isTraced);
    const { random } = world;
    this.#world = world;
    world.chaosEndsMs = random.chance(0.1) ? 0 : 5_000 + 60_000 * random.next();
    this.#maxTasks = [1, 3, 16, 64][random.below(4)];
    this.#swapsDisk = random.chance(0.06);
    const disk: TargetDisk = {
      serial: "SIMULATED",
      blocks: 20_000,
      maxTransferBlocks: [0, 1, 7, 64, 500][random.below(5)],
      fill: fillBlocks,
    };
    this.#target = new SimTarget(world, disk, {
      maxTasks: this.#maxTasks,
      faultRate: [0, 0.02, 0.1, 0.6][random.below(4)],
      ways: someWays(random),
      latencyMs: [0.5, 5, 300][random.below(3)],
    });
    this.#session = new Session(this.#options());
  }

  #options(): InitiatorOptions {
    const world = this.#world;
    const { random } = world;
    return {
      host: "simulated",
      port: 3260,
      targetName: "iqn.2026-01.test:simulated",
      initiatorName: "iqn.2026-01.test:me",
      isidQualifier: 1,
      headerDigest: random.chance(0.3),
      dataDigest: random.chance(0.3),
      maxTasks: this.#maxTasks,
      initialCmdSN: random.chance(0.2) ? 0xfffffff0 : 1,
      retryFirst: true,
      connect: connectIn(world, (socket) => this.#target.accept(socket)),
      clock: world.initiatorClock,
      random: () => random.next(),
      onStateChange: (state, error) => world.note(`session ${state} ${error?.message ?? ""}`),
    };
  }

  async go(seed: number): Promise<Outcome> {
    const { random } = this.#world;
    const opened = this.#session.open().then(() => undefined, (error: unknown) => error);
    let openError: unknown;
    let isOpen = false;
    void opened.then((error) => [openError, isOpen] = [error, true]);
    await this.#runUntil(() => isOpen, "the session opens");
    if (openError !== undefined) this.#world.broken(`open rejected: ${openError}`);
    else {
      const count = 5 + random.below(40);
      for (let i = 0; i < count; i++) this.#later(() => this.#read());
      if (this.#swapsDisk) this.#later(() => this.#swapDisk());
      await this.#runUntil(() => this.#reads.length === count && this.#pending.length === 0, "all reads end");
    }
    await this.#end();
    return this.#outcome(seed);
  }

  get #pending(): Read[] {
    return this.#reads.filter((read) => read.state === "pending");
  }

  #later(act: () => void): void {
    this.#world.clock.after(this.#world.random.next() * 20_000, act);
  }

  #read(): void {
    const { random } = this.#world;
    const bound = random.chance(0.05) ? 4000 : random.chance(0.5) ? 8 : 300;
    const blocks = 1 + random.below(Math.min(bound, 50 * (this.#target.disk.maxTransferBlocks || 2048)));
    const read = new Read(random.below(20_000 - blocks + 1), blocks);
    this.#reads.push(read);
    this.#world.note(`read ${read.lba}+${blocks}`);
    if (random.chance(0.015)) this.#world.clock.after(this.#world.skewed(2000), () => this.#close());
    this.#session.read(read.lba * 512, read.into, { signal: read.abort.signal })
      .then(() => this.#onResolved(read), (error) => this.#onRejected(read, error));
    if (random.chance(0.08)) this.#later(() => read.abort.abort(new Error("aborted")));
  }

  #onResolved(read: Read): void {
    this.#settle(read, "resolved");
    this.#resolvedBytes += read.into.length;
    const expected = new Uint8Array(read.into.length);
    fillBlocks(expected, read.lba);
    if (Buffer.compare(read.into, expected) !== 0) {
      const at = read.into.findIndex((byte, index) => byte !== expected[index]);
      this.#world.broken(`the read of ${read.lba}+${read.blocks} is wrong from byte ${at} on`);
    }
  }

  #onRejected(read: Read, error: unknown): void {
    this.#settle(read, "rejected");
    const { lba, blocks } = read;
    const wasTold = (error instanceof ScsiError || error instanceof ProtocolError) &&
      this.#target.mayHaveFailed(lba, blocks);
    const isRight = wasTold ||
      (read.abort.signal.aborted && error === read.abort.signal.reason) ||
      (this.#isClosing && error instanceof SessionClosedError) ||
      (this.#swapsDisk && error instanceof IdentityError);
    if (!isRight) this.#world.broken(`the read of ${lba}+${blocks} rejected for no reason: ${error}`);
  }

  #settle(read: Read, state: "resolved" | "rejected"): void {
    if (read.state !== "pending") this.#world.broken(`the read of ${read.lba} ended twice`);
    read.state = state;
    read.fingerprint = fingerprint(read.into);
    this.#world.note(`${state} ${read.lba}+${read.blocks} ${read.fingerprint}`);
  }

  #close(): void {
    this.#world.reach("closed in the middle");
    this.#isClosing = true;
    void this.#session.close();
  }

  /** Every connection from now on shows another disk; those that are up go on showing the first. */
  #swapDisk(): void {
    this.#world.reach("another disk");
    const { disk } = this.#target;
    const other = this.#world.random.chance(0.5)
      ? { ...disk, serial: "ANOTHER" }
      : { ...disk, blocks: disk.blocks - 1 };
    this.#target.disk = { ...other, fill: (into) => void into.fill(0xee) };
  }

  async #runUntil(isSo: () => boolean, what: string): Promise<void> {
    const { clock, nowMs, chaosEndsMs } = this.#world;
    const deadlineMs = Math.max(nowMs, chaosEndsMs) + patienceMs;
    // What was begun just now may be over without any event.
    await new Promise<void>((resolve) => setImmediate(resolve));
    for (let steps = 0; !isSo(); steps++) {
      const hasMore = this.#world.nowMs < deadlineMs && steps < maxSteps && await clock.step();
      if (hasMore && this.#world.problems.length === 0) continue;
      return this.#world.broken(`never: ${what} (after ${steps} steps)`);
    }
  }

  /** Closes, lets what is late come, and looks at what is left. */
  async #end(): Promise<void> {
    this.#isClosing = true;
    let isClosed = false;
    void this.#session.close().then(() => isClosed = true);
    await this.#runUntil(() => isClosed, "the session closes");
    const untilMs = this.#world.nowMs + 60_000;
    while (this.#world.nowMs < untilMs && await this.#world.clock.step());
    for (const read of this.#reads) {
      if (read.state !== "pending" && fingerprint(read.into) !== read.fingerprint) {
        this.#world.broken(`the buffer of ${read.lba}+${read.blocks} was written after the read had ended`);
      }
    }
    const { bytesRead, inFlight, queued } = this.#session.statistics;
    if (bytesRead !== this.#resolvedBytes) {
      this.#world.broken(`${bytesRead} bytes counted, ${this.#resolvedBytes} bytes resolved`);
    }
    if (inFlight + queued !== 0) this.#world.broken(`${inFlight} in flight and ${queued} queued at the end`);
  }

  #outcome(seed: number): Outcome {
    const { problems, trace, reached, nowMs } = this.#world;
    if (problems.length > 0) throw new SimulationError(seed, problems, trace ?? []);
    const count = (state: string) => this.#reads.filter((read) => read.state === state).length;
    return {
      seed,
      reads: this.#reads.length,
      resolved: count("resolved"),
      rejected: count("rejected"),
      reconnects: this.#session.statistics.reconnects,
      mostInFlight: this.#target.mostInFlight,
      durationMs: nowMs,
      reached,
      trace: trace ?? [],
    };
  }
}

/** Few ways to fail in one run, and many in another: what only comes about when one goes on and on is found too. */
function someWays(random: Random): string[] {
  const names = Object.keys(ways);
  if (random.chance(0.5)) return names;
  return Array.from({ length: 1 + random.below(4) }, () => names[random.below(names.length)]);
}

/** A promise of the initiator was broken; the message says how to see it again. */
export class SimulationError extends Error {
  readonly trace: readonly string[];

  constructor(seed: number, problems: readonly string[], trace: readonly string[]) {
    super(
      `seed ${seed}: ${problems.join("; ")}\nagain: node test/simulation/initiator/replay.ts ${seed}`,
    );
    this.name = "SimulationError";
    this.trace = trace;
  }
}

/** One run. The same seed is the same run, to the byte. Throws `SimulationError`. */
export function runSeed(seed: number, options: { readonly trace?: boolean } = {}): Promise<Outcome> {
  return new Run(seed, options.trace ?? false).go(seed);
}
