/**
 * A simulated world: hosts, their processes, a clock and a network, all driven by one seed. The real code runs in
 * it as if it were several programs on several machines (see bundle.ts).
 *
 * Whatever changes anything outside of a process's own memory (a file, a message, another process) is a *moment*,
 * counted from the start: before and after each a fault can come. A process that was killed does nothing more:
 * its calls throw, or never come back.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import type { Buffer } from "node:buffer";
import type { Code } from "./bundle.ts";
import { type FileNode, FileSystem } from "./file-system.ts";
import { forever, Killed } from "./killed.ts";

export { forever, Killed };

/** A tgtd, as far as others see it (target-model.ts). */
export interface Target {
  readonly process: Process;
  readonly folder: string;
  readonly address: string;
  readonly port: number;
  exported: { readonly name: string; readonly disk: FileNode; readonly allow: string } | undefined;
}

/** An engine, as far as others see it (engine-model.ts). */
export interface Engine {
  readonly process: Process;
  readonly config: { readonly path: string; readonly activation: string };
  readonly activated: boolean;
  readonly isServing: boolean;
  clients: number;
  isConnectedTo(target: Target): boolean;
  handle(method: string, params: unknown): unknown;
  read(block: number): Buffer | undefined;
  write(block: number, data: Buffer): Promise<void>;
  flush(): Promise<void>;
}

/** What goes over a link (conversation.ts). */
interface Traffic {
  linkChanged(): void;
  powerLost(host: Host): void;
}

export class Host {
  readonly name: string;
  readonly address: string;
  readonly files: FileSystem;
  readonly processes = new Map<number, Process>();
  bootId = "";
  isUp = true;
  /** Who listens on a unix socket here. */
  readonly listeners = new Map<string, Engine>();
  readonly targets = new Map<number, Target>();

  constructor(world: World, name: string, address: string) {
    this.name = name;
    this.address = address;
    this.files = new FileSystem(() => world.nowMs);
  }
}

export class Process {
  readonly host: Host;
  readonly pid: number;
  /** What it is, for the trace and for faults: "engine", "tgtd", "role", "drive", "command", "user". */
  readonly kind: string;
  readonly args: readonly string[];
  readonly environment: Record<string, string>;
  readonly log: (text: string) => void;
  readonly ends: (() => void)[] = [];
  readonly signals = new Map<string, (() => void)[]>();
  isDead = false;

  constructor(host: Host, pid: number, how: Spawn) {
    this.host = host;
    this.pid = pid;
    this.kind = how.kind;
    this.args = how.args;
    this.environment = {
      PATH: "/usr/bin",
      DLSM_STATE_DIR: "/state",
      DLSM_RUN_DIR: "/run/dlsm",
      ...how.environment,
    };
    this.log = how.log ?? (() => {});
  }
}

export interface Spawn {
  readonly kind: string;
  readonly args: readonly string[];
  readonly environment?: Record<string, string>;
  readonly log?: (text: string) => void;
}

interface Timed {
  readonly atMs: number;
  readonly order: number;
  readonly work: () => void;
}

const storage = new AsyncLocalStorage<Process>();

/** The simulated process that runs now. */
export function current(): Process {
  const process = storage.getStore();
  if (process === undefined) throw new Error("no simulated process runs");
  return process;
}

export class World {
  readonly hosts = new Map<string, Host>();
  readonly conversations = new Set<Traffic>();
  /** Who has a migration's driver's place, by host and id. */
  readonly drivers = new Map<string, Process>();
  readonly trace: string[] = [];
  readonly random: () => number;
  code!: Code;
  nowMs = 0;
  moments = 0;
  /** Called at each moment; may kill the process that is in it. */
  onMoment: (moment: number, what: string) => void = () => {};
  /** The user's hand-off command. */
  onCommand: () => void = () => {};
  /** A volume is being activated. */
  onActivate: (id: string) => void = () => {};
  /** What must never be, seen on the way. */
  readonly violations: string[] = [];
  readonly #queue: Timed[] = [];
  /** Pairs of hosts that cannot hear each other, "a/b" in order; true: nobody is told. */
  readonly #cuts = new Map<string, boolean>();
  #order = 0;
  #nextPid = 100;

  constructor(seed: number) {
    this.random = randomFrom(seed);
    for (const [at, name] of ["a", "b", "c"].entries()) {
      const host = new Host(this, name, `10.0.0.${at + 1}`);
      host.bootId = this.text(8);
      this.hosts.set(name, host);
    }
  }

  host(name: string): Host {
    return this.hosts.get(name)!;
  }

  /** As ssh names it: `root@b`, `root@10.0.0.2`. */
  named(reach: string): Host | undefined {
    const name = reach.split("@").at(-1)!;
    return [...this.hosts.values()].find((host) => host.name === name || host.address === name);
  }

  say(text: string): void {
    this.trace.push(`${String(Math.round(this.nowMs)).padStart(7)} #${this.moments} ${text}`);
  }

  violate(text: string): void {
    this.say(`VIOLATED: ${text}`);
    this.violations.push(text);
  }

  // --- chance ---

  /** An integer below `count`. */
  below(count: number): number {
    return Math.floor(this.random() * count);
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }

  text(length: number): string {
    return Array.from({ length }, () => this.below(16).toString(16)).join("");
  }

  // --- processes ---

  /** Runs `main` as a process; resolves when it has ended by itself, never when it was killed. */
  spawn(host: Host, how: Spawn, main: () => Promise<unknown>): Process {
    const process = new Process(host, this.#nextPid++, how);
    host.processes.set(process.pid, process);
    this.say(`${host.name}: ${process.pid} ${process.kind} ${process.args.join(" ").slice(0, 120)}`);
    this.after(1, () => {
      if (process.isDead) return;
      const run = storage.run(process, main);
      const end = () => this.end(process, "ended");
      run.then(end, (error: unknown) => {
        if (!process.isDead) process.log(error instanceof Error ? `${error.stack}` : String(error));
        end();
      });
    });
    return process;
  }

  /** Ends the process, whatever it does. */
  end(process: Process, why: string): void {
    if (process.isDead) return;
    this.say(`${process.host.name}: ${process.pid} ${process.kind} ${why}`);
    process.isDead = true;
    process.host.processes.delete(process.pid);
    process.host.files.closeAll(process);
    for (const end of process.ends) end();
  }

  /** Runs something in the process at once. */
  inside<T>(process: Process, work: () => T): T {
    return storage.run(process, work);
  }

  interrupt(process: Process): void {
    if (!process.isDead) {
      for (const listener of process.signals.get("SIGINT") ?? []) this.inside(process, listener);
    }
  }

  /** Something is about to be done, or was just done. */
  moment(what: string): void {
    const process = current();
    if (process.isDead) throw new Killed();
    this.onMoment(++this.moments, `${process.host.name} ${process.kind} ${what}`);
    if (process.isDead) throw new Killed();
  }

  /** Does `work`, with a moment before it and one after it. */
  act<T>(what: string, work: () => T): T {
    this.moment(what);
    const result = work();
    this.moment(`${what}: done`);
    return result;
  }

  // --- hosts and links ---

  /** Without power: what was not synced is lost (`isLossy`), and all that is in the run folder. */
  powerOff(host: Host, isLossy: boolean): void {
    this.say(`${host.name}: power off${isLossy ? ", what was not synced is lost" : ""}`);
    host.isUp = false;
    for (const process of [...host.processes.values()]) this.end(process, "power off");
    for (const conversation of [...this.conversations]) conversation.powerLost(host);
    host.listeners.clear();
    host.targets.clear();
    host.files.lose(isLossy);
  }

  powerOn(host: Host): void {
    if (host.isUp) return;
    host.bootId = this.text(8);
    host.isUp = true;
    this.say(`${host.name}: power on`);
  }

  cut(one: Host, other: Host, isSilent: boolean): void {
    if (one === other) return;
    this.say(`${one.name}/${other.name}: cut${isSilent ? " silently" : ""}`);
    this.#cuts.set(pairOf(one, other), isSilent);
    for (const conversation of [...this.conversations]) conversation.linkChanged();
  }

  mend(one: Host, other: Host): void {
    if (!this.#cuts.delete(pairOf(one, other))) return;
    this.say(`${one.name}/${other.name}: mended`);
    for (const conversation of [...this.conversations]) conversation.linkChanged();
  }

  mendAll(): void {
    for (const host of this.hosts.values()) this.powerOn(host);
    for (const one of this.hosts.values()) for (const other of this.hosts.values()) this.mend(one, other);
  }

  link(one: Host, other: Host): "up" | "cut" | "silent" {
    if (!one.isUp || !other.isUp) return "cut";
    const isSilent = this.#cuts.get(pairOf(one, other));
    return isSilent === undefined ? "up" : isSilent ? "silent" : "cut";
  }

  // --- time ---

  after(delayMs: number, work: () => void): void {
    const timed = { atMs: this.nowMs + delayMs, order: this.#order++, work };
    let at = this.#queue.length;
    while (at > 0 && isLater(this.#queue[at - 1]!, timed)) at--;
    this.#queue.splice(at, 0, timed);
  }

  /** Waits in the current process. */
  sleep(delayMs: number): Promise<void> {
    const process = current();
    if (process.isDead) return forever;
    return new Promise((resolve) => this.after(delayMs, () => process.isDead || resolve()));
  }

  /** Lets time pass until `isEnough`; false after `limitMs` of simulated time. */
  async run(isEnough: () => boolean, limitMs: number): Promise<boolean> {
    const deadline = this.nowMs + limitMs;
    for (;;) {
      await new Promise(setImmediate);
      if (isEnough()) return true;
      const next = this.#queue[0];
      if (next === undefined || next.atMs > deadline) {
        this.nowMs = deadline;
        return false;
      }
      this.#queue.shift();
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.work();
    }
  }
}

function isLater(one: Timed, other: Timed): boolean {
  return one.atMs > other.atMs || (one.atMs === other.atMs && one.order > other.order);
}

function pairOf(one: Host, other: Host): string {
  return [one.name, other.name].sort().join("/");
}

/** Mulberry32: small, and good enough to choose faults with. */
function randomFrom(seed: number): () => number {
  let state = (seed * 0x9e3779b1) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The world that the real code runs in now: one at a time, since it asks for it as for a machine. */
let present: World | undefined;
export function world(): World {
  if (present === undefined) throw new Error("no world is simulated");
  return present;
}
export function enter(next: World | undefined): void {
  present = next;
}
