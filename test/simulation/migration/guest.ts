/**
 * Who uses the disk: a machine that has the source open until it is stopped, and then reads and writes at the
 * destination. It knows what each block may hold: what was acknowledged last, or is on its way; after the power
 * was lost also what was flushed last and all since.
 */
import { Buffer } from "node:buffer";
import { openSync } from "./node-fs.ts";
import { type Engine, forever, type Host, Killed, type Process, type World } from "./world.ts";

export const blockBytes = 4096;

export function content(text: string): Buffer {
  return Buffer.alloc(blockBytes, `${text};`);
}

/** What one block may hold. */
interface Block {
  /** Now, while the power is on. */
  now: Set<string>;
  /** What was acknowledged or begun since the last flush. */
  since: Set<string>;
  flushed: Set<string>;
}

export class Guest {
  readonly #world: World;
  readonly blocks: Block[];
  readonly #path: string;
  #source: Process | undefined;
  #number = 0;
  #writes: number;
  /** The hand-off has happened: a write here was acknowledged. */
  hasWritten = false;

  constructor(world: World, path: string, original: readonly Buffer[], writes: number) {
    this.#world = world;
    this.#path = path;
    this.#writes = writes;
    this.blocks = original.map((data) => {
      const only = () => new Set([data.toString("latin1")]);
      return { now: only(), since: new Set(), flushed: only() };
    });
  }

  /** Has the source open for writing, from now on. */
  useSource(host: Host, path: string): void {
    this.#source = this.#world.spawn(host, { kind: "guest", args: [path] }, () => {
      openSync(path, "r+");
      return forever;
    });
  }

  leaveSource(): void {
    if (this.#source !== undefined) this.#world.end(this.#source, "stopped");
  }

  get #hasLeft(): boolean {
    return this.#source === undefined || this.#source.isDead;
  }

  /** Uses the volume for a while, wherever its engine serves. */
  use(): void {
    const world = this.#world;
    const again = () => world.after(150 + world.below(300), () => this.use());
    if (this.#writes === 0) return;
    const engine = this.#engine();
    if (engine === undefined || !this.#hasLeft) return again();
    if (!engine.activated && engine.config.activation !== "first-write") return again();
    this.#writes--;
    engine.clients = 1;
    world.inside(engine.process, () => this.#useOnce(engine)).then(() => {
      if (this.#writes === 0) engine.clients = 0;
    }).catch((error) => {
      if (!(error instanceof Killed)) throw error;
    });
    again();
  }

  #engine(): Engine | undefined {
    const engines = [...this.#world.hosts.values()].flatMap((host) => [...host.listeners.values()]);
    return engines.find((engine) => engine.isServing && engine.config.path === this.#path);
  }

  async #useOnce(engine: Engine): Promise<void> {
    const at = this.#world.below(this.blocks.length);
    const block = this.blocks[at]!;
    const found = engine.activated ? engine.read(at)?.toString("latin1") : undefined;
    if (found !== undefined && !block.now.has(found)) {
      this.#world.violate(`block ${at} was read as ${found.slice(0, 12)}, not ${shown(block.now)}`);
    }
    const data = content(`${this.#path} ${at} ${++this.#number}`);
    const text = data.toString("latin1");
    block.now.add(text);
    block.since.add(text);
    await engine.write(at, data);
    block.now = new Set([text]);
    this.hasWritten = true;
    if (this.#world.below(3) > 0) return;
    const held = this.blocks.map(({ now }) => new Set(now));
    await engine.flush();
    held.forEach((now, each) => {
      this.blocks[each]!.flushed = now;
      this.blocks[each]!.since = new Set();
    });
  }

  /** The host of the volume has lost its power. */
  lost(): void {
    for (const block of this.blocks) block.now = new Set([...block.now, ...block.flushed, ...block.since]);
  }

  stop(): void {
    this.#writes = 0;
    for (const host of this.#world.hosts.values()) {
      for (const engine of host.listeners.values()) engine.clients = 0;
    }
  }

  /** What is wrong with the disk, in words. */
  problems(disk: Buffer): string[] {
    return this.blocks.flatMap(({ now }, at) => {
      const found = disk.subarray(at * blockBytes, (at + 1) * blockBytes).toString("latin1");
      return now.has(found)
        ? []
        : [`block ${at} of ${this.#path} is ${found.slice(0, 24)}, not ${shown(now)}`];
    });
  }
}

function shown(texts: ReadonlySet<string>): string {
  return [...texts].map((text) => text.slice(0, 24)).join(" or ");
}
