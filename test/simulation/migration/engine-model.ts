/**
 * An engine as the roles know it: one process that serves a volume out of a map and a local disk, asked on its
 * control socket. How the real one keeps its maps is simulated elsewhere; here only what they promise: the live
 * map outlives the process, the durable one the power, and bits are marked after their data.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import {
  type Block,
  type EngineFolders,
  later,
  liveMap,
  livePath,
  mapPath,
  readMap,
  type StoredMap,
} from "./engine-maps.ts";
import { FileNode } from "./file-system.ts";
import { closeSync, existsSync, fsyncSync, openSync, readSync, tryLock, writeSync } from "./node-fs.ts";
import { exportedDisk } from "./target-model.ts";
import { current, type Engine, forever, type Process, type Target, world } from "./world.ts";

interface Config {
  readonly volumeId: string;
  readonly path: string;
  readonly sizeBytes: number;
  readonly blockBytes: number;
  readonly activation: string;
  readonly isSeeded: boolean;
  readonly bytesPerSecond: number | null;
  readonly isPaused: boolean;
  readonly source: { readonly address: string; readonly port: number; readonly targetName: string };
}

const tickMs = 150;

export class EngineModel implements Engine {
  readonly process: Process = current();
  readonly folders: EngineFolders;
  config: Config;
  clients = 0;
  #map: StoredMap;
  #disk: number;
  #descriptor: number;
  #isConnected = false;
  #isDetached = false;
  #isRefusing = false;
  #isStopping = false;
  #limit: number | null;
  #isPaused: boolean;

  constructor(folders: EngineFolders, config: Config, map: StoredMap, descriptor: number) {
    this.folders = folders;
    this.config = config;
    this.#map = map;
    this.#descriptor = descriptor;
    this.#disk = openSync(config.path, "r+");
    this.#limit = config.bytesPerSecond;
    this.#isPaused = config.isPaused;
  }

  get activated(): boolean {
    return this.#map.activated;
  }

  get isServing(): boolean {
    return !this.process.isDead && !this.#isStopping && (!this.config.isSeeded || this.activated);
  }

  isConnectedTo({ port, exported }: Target): boolean {
    const { source } = this.config;
    return this.#isConnected && port === source.port && exported?.name === source.targetName;
  }

  get #isSynced(): boolean {
    return this.activated && this.#map.blocks.every((block) => block !== "absent");
  }

  // --- what the user of the disk does ---

  /** Resolves when it is acknowledged. A write before the hand-off is the hand-off, or waits for it. */
  async write(block: number, data: Buffer): Promise<void> {
    if (!this.activated) {
      if (this.config.activation !== "first-write") return await forever;
      if (this.#isRefusing) return await forever;
      this.#activate();
    }
    // What is the same as at the source is marked before it is not any more.
    if (this.#map.blocks[block] === "crossed") this.#mark(block, "written");
    writeSync(this.#disk, data, 0, data.length, block * data.length);
    if (this.#map.blocks[block] !== "written") this.#mark(block, "written");
    await world().sleep(2);
  }

  async flush(): Promise<void> {
    this.#checkpoint(false);
    await world().sleep(2);
  }

  read(block: number): Buffer | undefined {
    const { blockBytes } = this.config;
    if (this.#map.blocks[block] === "absent") {
      return this.#source()?.data.subarray(block * blockBytes, (block + 1) * blockBytes);
    }
    const data = Buffer.alloc(blockBytes);
    readSync(this.#disk, data, 0, blockBytes, block * blockBytes);
    return data;
  }

  // --- by itself ---

  async run(): Promise<void> {
    while (!this.#isStopping) {
      await world().sleep(tickMs);
      this.tick();
    }
    await forever;
  }

  tick(): void {
    const disk = this.#source();
    this.#isConnected = disk !== undefined;
    if (!this.activated || this.#isPaused || disk === undefined || this.#isStopping) return;
    const block = this.#map.blocks.indexOf("absent");
    if (block < 0) return;
    const { blockBytes } = this.config;
    const data = disk.data.subarray(block * blockBytes, (block + 1) * blockBytes);
    writeSync(this.#disk, data, 0, data.length, block * blockBytes);
    this.#mark(block, "crossed");
    if (this.#isSynced) this.#checkpoint(false);
  }

  #source(): FileNode | undefined {
    return this.#isDetached ? undefined : exportedDisk(this.process.host, this.config.source);
  }

  // --- the maps ---

  #activate(): void {
    if (this.activated) return;
    world().onActivate(this.config.volumeId);
    this.#map = { ...this.#map, activated: true };
    this.#save(mapPath(this.folders), this.#descriptor);
    this.#saveLive();
    world().say(`${this.config.volumeId} is activated`);
  }

  #mark(block: number, state: Block): void {
    this.#map.blocks[block] = state;
    this.#saveLive();
  }

  #checkpoint(clean: boolean): void {
    fsyncSync(this.#disk);
    this.#map = { ...this.#map, clean };
    this.#save(mapPath(this.folders), this.#descriptor);
  }

  #saveLive(): void {
    const { files } = this.process.host;
    world().act("live map", () => {
      const file = files.file(livePath(this.folders));
      file.data = Buffer.from(JSON.stringify(this.#map));
    });
  }

  #save(path: string, descriptor: number): void {
    const { files } = this.process.host;
    world().act(`map ${path}`, () => {
      const file = files.handle(descriptor).node as FileNode;
      file.data = Buffer.from(JSON.stringify(this.#map));
      files.sync(file);
    });
  }

  // --- what can be asked of it ---

  status() {
    const { sizeBytes, blockBytes } = this.config;
    const { blocks } = this.#map;
    const bytes = (state: Block) => blocks.filter((each) => each === state).length * blockBytes;
    return {
      state: !this.activated ? "attached" : this.#isSynced ? "synced" : "active",
      pid: this.process.pid,
      sizeBytes,
      blockBytes,
      residentBytes: bytes("crossed") + bytes("written"),
      writtenBytes: bytes("written"),
      fetchedBytes: { demand: 0, readahead: 0, sync: bytes("crossed") },
      refetchedBytes: 0,
      holeBytes: 0,
      overwrittenBytes: bytes("written"),
      rateBytesPerSecond: 0,
      etaSeconds: null,
      sync: !this.activated ? "idle" : this.#isSynced ? "done" : this.#isPaused ? "paused" : "running",
      limitBytesPerSecond: this.#limit,
      isConnected: this.#isConnected,
      isActivating: false,
      isSourceDetached: this.#isDetached,
      sourceError: this.#isConnected ? null : "no answer",
      lastError: null,
      clients: this.clients,
    };
  }

  readonly #methods: Record<string, (params: Record<string, unknown>) => unknown> = {
    status: () => this.status(),
    activate: () => {
      if (this.#isRefusing) throw new (world().code.errors.PreconditionError)("it is being given up");
      this.#activate();
      return this.status();
    },
    pause: () => (this.#isPaused = true, this.status()),
    resume: () => (this.#isPaused = false, this.status()),
    limit: ({ bytesPerSecond }) => (this.#limit = bytesPerSecond as number | null, this.status()),
    replaceSource: (source) => {
      this.config = { ...this.config, source: source as unknown as Config["source"] };
      this.tick();
      return this.status();
    },
    hashFetched: () => ({ pieces: this.#hashes(), next: null }),
    detachSource: () => {
      if (!this.#isSynced) throw new (world().code.errors.PreconditionError)("the source is still needed");
      this.#checkpoint(false);
      this.#isDetached = true;
      this.#isConnected = false;
      return this.status();
    },
    stop: () => this.#stop(),
    stopUnlessActivated: () => {
      if (this.activated) return { isStopping: false };
      this.#isRefusing = true;
      this.#stop();
      return { isStopping: true };
    },
  };

  /** In this engine's process; throws what it refuses with. */
  handle(method: string, params: unknown): unknown {
    return world().inside(this.process, () => this.#methods[method]!(params as Record<string, unknown>));
  }

  #stop() {
    if (this.#isStopping) return {};
    this.#isStopping = true;
    this.clients = 0;
    this.#checkpoint(true);
    const { process } = this;
    // It ends a little after its answer.
    world().after(8, () => {
      if (process.isDead) return;
      process.host.files.find(this.folders.run) &&
        process.host.files.folder(this.folders.run).entries.delete("control.sock");
      world().end(process, "stopped in good order");
    });
    return {};
  }

  #hashes() {
    const { blockBytes } = this.config;
    return this.#map.blocks.flatMap((state, block) => {
      if (state !== "crossed") return [];
      const sha256 = createHash("sha256").update(this.read(block)!).digest();
      return [{ extents: [[block * blockBytes, blockBytes]], sha256: new Uint8Array(sha256) }];
    });
  }
}

// --- its process ---

/** `dlsm engine STATE RUN …`, in a process of its own. */
export async function engineMain(args: readonly string[]): Promise<void> {
  const [, state, run] = args;
  const folders = { state: state!, run: run! };
  const { host, log } = current();
  try {
    const config = world().code.engineConfigJournal(folders.state).read() as Config;
    const engine = open(folders, config, args);
    await world().sleep(10);
    const path = `${folders.run}/control.sock`;
    const serving = [...host.listeners.values()].filter((each) =>
      each.config.path === config.path && !each.process.isDead
    );
    if (serving.length > 0) world().violate(`two engines serve ${config.path}`);
    closeSync(openSync(path, "w", 0o600));
    host.listeners.set(path, engine);
    const { process } = engine;
    process.ends.push(() => host.listeners.get(path) === engine && host.listeners.delete(path));
    engine.tick();
    await engine.run();
  } catch (error) {
    if (current().isDead) return;
    const { message, hint = null, exitCode = 1 } = error as Error & { hint?: string; exitCode?: number };
    log(`${JSON.stringify({ error: { exitCode, message, hint } })}\n`);
  }
}

function open(folders: EngineFolders, config: Config, args: readonly string[]): EngineModel {
  const refuse = (message: string) => new (world().code.errors.PreconditionError)(message);
  const isNew = args.includes("--new");
  if (!isNew && !existsSync(mapPath(folders))) throw refuse("the residency map is missing");
  const descriptor = openSync(mapPath(folders), existsSync(mapPath(folders)) ? "r+" : "wx+", 0o600);
  if (!tryLock(descriptor)) throw refuse(`another engine serves ${config.path}`);
  const { host } = current();
  const durable = readMap(mapPath(folders));
  const live = durable === undefined ? undefined : liveMap(folders, durable);
  if (durable === undefined && !isNew) throw refuse("the residency map is damaged");
  const isCut = durable !== undefined && durable.activated && durable.bootId === host.bootId &&
    !durable.clean;
  if (isCut && live === undefined && !args.includes("--force")) throw refuse("the live map is missing");
  const count = Math.ceil(config.sizeBytes / config.blockBytes);
  const known = durable ??
    { activated: false, blocks: Array.from({ length: count }, () => "absent" as const), generation: "" };
  const map: StoredMap = {
    activated: known.activated || live?.activated === true,
    blocks: known.blocks.map((block, at) => later(block, live?.blocks[at])),
    clean: false,
    bootId: host.bootId,
    generation: live?.generation ?? world().text(6),
  };
  if (!existsSync(livePath(folders))) closeSync(openSync(livePath(folders), "w", 0o600));
  const engine = new EngineModel(folders, config, map, descriptor);
  const { files } = host;
  world().act("maps", () => {
    const bytes = () => Buffer.from(JSON.stringify(map));
    files.file(livePath(folders)).data = bytes();
    files.file(mapPath(folders)).data = bytes();
    files.sync(files.file(mapPath(folders)));
  });
  return engine;
}
