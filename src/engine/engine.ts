/**
 * One engine: a volume, its NBD server, its connection to the source, and what can be asked of it.
 * The process around it is process.ts.
 */
import { existsSync, statSync } from "node:fs";
import { errnoCode, FailedError, messageOf, PreconditionError } from "../lib/errors.ts";
import { tryLock } from "../lib/libc.ts";
import { bootId } from "../lib/process-id.ts";
import { etaSeconds } from "../lib/rate.ts";
import { NbdServer } from "../nbd-server/mod.ts";
import { systemClock } from "./clock.ts";
import { type EngineConfig, engineFiles, type SourceExport } from "./config.ts";
import { IscsiSource } from "./iscsi-source.ts";
import { type LocalDisk, openLocalDisk } from "./local-disk.ts";
import { openMapFile } from "./map-file.ts";
import { MapVersionError } from "./map-layout.ts";
import { RateMeter } from "./rate-meter.ts";
import { LiveMapError, MapError, ResidencyStore, SyncFailedError } from "./residency-store.ts";
import { type EngineStatus, type SyncedState } from "./status.ts";
import { type HashedPiece, hashFetched } from "./verify.ts";
import { Volume } from "./volume.ts";

export interface EngineStart {
  /** Make the residency map; otherwise it must be there. */
  readonly isNew: boolean;
  /** Go on although what was acknowledged and not flushed is lost with the live map. */
  readonly mayLoseUnflushed: boolean;
}

export interface EngineFolders {
  /** Survives a reboot: configuration, durable map, log. */
  readonly state: string;
  /** Sockets and the live map. */
  readonly run: string;
}

/** Pieces that are hashed in one call, at most. */
const maxPieces = 64;

export class Engine {
  readonly #config: EngineConfig;
  readonly #log: (text: string) => void;
  readonly #source: IscsiSource;
  readonly #store: ResidencyStore;
  readonly #volume: Volume;
  readonly #server: NbdServer;
  readonly #rate: RateMeter;
  readonly #nbdSocket: string;
  #listening: Promise<void> | undefined;
  #isSourceDetached = false;
  #stopping: Promise<void> | undefined;

  private constructor(
    config: EngineConfig,
    store: ResidencyStore,
    disk: LocalDisk,
    { run }: EngineFolders,
    log: (text: string) => void,
  ) {
    this.#config = config;
    this.#nbdSocket = `${run}/${engineFiles.nbdSocket}`;
    this.#log = log;
    this.#store = store;
    this.#source = new IscsiSource(config.source, {
      initiatorName: initiatorName(config.volumeId),
      onChange: log,
    });
    const { sizeBytes, blockBytes } = config;
    this.#volume = new Volume({
      geometry: { sizeBytes, blockBytes },
      source: this.#source,
      disk,
      store,
      clock: systemClock,
      activation: config.activation,
      bytesPerSecond: config.bytesPerSecond ?? Infinity,
      sourceTimeoutMs: config.sourceTimeoutMs ?? undefined,
      onActivated: () => log("activated: the source is frozen from now on"),
      onSynced: () => log("synced: every block is resident and durable"),
    });
    this.#server = new NbdServer(this.#volume, {
      description: `dlsm ${config.volumeId}`,
      onError: (error) => log(`NBD: ${error.message}`),
    });
    this.#rate = new RateMeter(() => store.map.residentCount * blockBytes);
  }

  /**
   * Opens the volume and serves it. `isNew`: makes its map; otherwise the map must be there. Throws
   * `PreconditionError` if the map cannot be used or another engine serves the volume.
   */
  static async start(
    config: EngineConfig,
    folders: EngineFolders,
    how: EngineStart,
    log: (text: string) => void,
  ): Promise<Engine> {
    const disk = openLocalDisk(config.path);
    const store = await openStore(config, folders, how);
    const engine = new Engine(config, store, disk, folders, log);
    if (!config.isSeeded || store.activated) await engine.#listen();
    if (config.isPaused) engine.#volume.sync.pause();
    else if (store.activated) engine.#volume.sync.start();
    return engine;
  }

  status(): EngineStatus {
    const { map, counters } = this.#store;
    const { sizeBytes, blockBytes } = this.#config;
    const bytes = (blocks: number) => Math.min(sizeBytes, blocks * blockBytes);
    const volume = this.#volume;
    const rate = this.#rate.bytesPerSecond;
    const absentBytes = sizeBytes - bytes(map.residentCount);
    return {
      state: this.#state(),
      pid: process.pid,
      sizeBytes,
      blockBytes,
      residentBytes: bytes(map.residentCount),
      writtenBytes: bytes(map.writtenCount),
      fetchedBytes: {
        demand: counters.demandBytes,
        readahead: counters.readaheadBytes,
        sync: counters.syncBytes,
      },
      refetchedBytes: counters.refetchedBytes,
      holeBytes: counters.holeBytes,
      overwrittenBytes: bytes(map.overwrittenCount),
      rateBytesPerSecond: Math.round(rate),
      etaSeconds: volume.sync.state === "running" || absentBytes === 0 ? etaSeconds(absentBytes, rate) : null,
      isActivating: volume.isActivating,
      sync: volume.sync.state,
      limitBytesPerSecond: volume.sync.bytesPerSecond === Infinity ? null : volume.sync.bytesPerSecond,
      isConnected: this.#source.isConnected,
      isSourceDetached: this.#isSourceDetached,
      sourceError: this.#isSourceDetached ? null : this.#source.lastError ?? null,
      lastError: volume.lastError === undefined
        ? this.#source.refusal ?? null
        : describeError(volume.lastError, this.#config.path),
      clients: this.#server.connectionCount,
    };
  }

  async activate(): Promise<void> {
    try {
      await this.#volume.activate();
    } catch (cause) {
      if (cause instanceof PreconditionError) throw cause;
      const { volumeId, path } = this.#config;
      throw new FailedError(
        `the hand-off of ${volumeId} cannot be written down: ${describeError(cause as Error, path)}`,
        {
          hint: `nothing was handed over: make space there, then dlsm activate ${volumeId} again`,
          cause,
        },
      );
    }
    await this.#listen();
  }

  #listen(): Promise<void> {
    this.#listening ??= this.#server.listen(this.#nbdSocket).catch((error) => {
      this.#listening = undefined;
      throw error;
    });
    return this.#listening;
  }

  pause(): void {
    this.#volume.sync.pause();
  }

  resume(): void {
    this.#volume.resume();
  }

  /** Limits the background sync; null for no limit. */
  limit(bytesPerSecond: number | null): void {
    this.#volume.sync.setRate(bytesPerSecond ?? Infinity);
  }

  replaceSource(source: SourceExport): Promise<void> {
    return this.#source.replace(source);
  }

  hashFetched(from: number): Promise<{ pieces: HashedPiece[]; next: number | undefined }> {
    return hashFetched(this.#volume.verification, from, maxPieces);
  }

  /** Logs out of the source for good; refused while anything is still absent. */
  async detachSource(): Promise<void> {
    if (!this.#volume.isSynced) {
      throw new PreconditionError("the source is still needed: not every block is resident and durable");
    }
    this.#isSourceDetached = true;
    await this.#source.close();
  }

  disconnectClients(): void {
    this.#server.dropAll();
  }

  /** False: it goes on, because the hand-off has happened, or is happening. True: it cannot happen any more. */
  refuseActivation(): boolean {
    return this.#volume.refuseActivation();
  }

  /** Ends in good order: clients see their socket close without a reply; everything is durable. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stopNow();
    return this.#stopping;
  }

  async #stopNow(): Promise<void> {
    this.#rate.close();
    await this.#server.close();
    this.#volume.sync.close();
    await this.#source.close();
    await this.#volume.close();
    this.#log("stopped in good order");
  }

  #state(): SyncedState {
    if (!this.#store.activated) return "attached";
    return this.#volume.isSynced ? "synced" : "active";
  }
}

/**
 * What the system says, with the name of the map file or else the local disk that it says it of. Errors of
 * the source are no errors of the system.
 */
function describeError(error: Error & { readonly path?: string }, diskPath: string): string {
  const path = error.path ?? diskPath;
  const code = errnoCode(error);
  if (code === "ENOSPC") return `no space left on the file system of ${path}`;
  if (code === "EDQUOT") return `the disk quota on the file system of ${path} is used up`;
  return "syscall" in error ? `${path}: ${messageOf(error)}` : messageOf(error);
}

function initiatorName(volumeId: string): string {
  return `iqn.2026-01.local.dlsm:${volumeId.toLowerCase().replaceAll(/[^a-z0-9.:-]/g, "-")}`;
}

async function openStore(
  config: EngineConfig,
  folders: EngineFolders,
  { isNew, mayLoseUnflushed }: EngineStart,
): Promise<ResidencyStore> {
  const path = `${folders.state}/${engineFiles.map}`;
  if (!isNew && !existsSync(path)) {
    throw new PreconditionError(`the residency map ${path} is missing`, {
      hint:
        "without it nobody knows which blocks of the destination are good: restore it from a backup, or give " +
        `up with dlsm abort ${config.volumeId} --force and migrate anew (what was written here is lost then)`,
    });
  }
  const durable = openMapFile(path);
  if (!tryLock(durable.descriptor)) {
    throw new PreconditionError(`another engine already serves ${config.path} (it holds ${path})`);
  }
  const live = openMapFile(`${folders.run}/${engineFiles.liveMap}`);
  const identity = {
    volumeId: config.volumeId,
    sizeBytes: config.sizeBytes,
    blockBytes: config.blockBytes,
    bootId: bootId(),
  };
  try {
    if (isNew && statSync(path).size === 0) {
      live.clear();
      return await ResidencyStore.create({ durable, live }, { ...identity, localZero: config.isFresh });
    }
    return await ResidencyStore.open({ durable, live }, identity, mayLoseUnflushed);
  } catch (error) {
    if (error instanceof LiveMapError) {
      throw new PreconditionError(`the residency map ${path} cannot be used: ${error.message}`, {
        hint: (error.isMissing
          ? `it was in the run folder: give the command with the DLSM_RUN_DIR of before (not ${folders.run}); `
          : "") +
          `dlsm resume ${config.volumeId} --force gives up what was written here and not flushed`,
        cause: error,
      });
    }
    if (error instanceof SyncFailedError) {
      throw new PreconditionError(`${config.path}: ${error.message}`, {
        hint:
          "see what the system says of that disk (dmesg), and restart this host; what was flushed before is kept. " +
          `Without a restart: dlsm resume ${config.volumeId} --force`,
        cause: error,
      });
    }
    if (error instanceof MapVersionError) {
      throw new PreconditionError(`${path}: ${error.message}`, {
        hint: "use the dlsm that wrote it, or a newer one",
      });
    }
    if (!(error instanceof MapError)) throw error;
    throw new PreconditionError(`the residency map ${path} cannot be used: ${error.message}`, {
      hint:
        "the source still has all data that was not written here since the hand-off: restore the map from a " +
        `backup, or give up with dlsm abort ${config.volumeId} --force and migrate anew`,
      cause: error,
    });
  }
}
