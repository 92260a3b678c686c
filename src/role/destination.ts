/**
 * The destination role: makes the local disk, runs the engine that serves it, and ends both.
 *
 * Each change is in the journal before it is made; each request can be repeated. How far the data is, only
 * the engine's map knows.
 */
import { hostname } from "node:os";
import { join } from "node:path";
import { type EngineConfig, engineFiles, type EngineStatus, readStoredStatus } from "../engine/mod.ts";
import { PreconditionError } from "../lib/errors.ts";
import { bootId } from "../lib/process-id.ts";
import { alone } from "./alone.ts";
import { decideAbort, requireNotAborting } from "./destination-abort.ts";
import { brokenEntry, entryOf, notRunning, type Running } from "./destination-entry.ts";
import {
  beginThaw,
  endThaw,
  freezeVolume,
  retireVolume,
  seedVolume,
  writtenOf,
} from "./destination-failback.ts";
import { destinationJournal, plannedRecord } from "./destination-journal.ts";
import { DestinationRecords } from "./destination-records.ts";
import { knownDisk } from "./disk-identity.ts";
import { readDriver } from "./driver.ts";
import { noteEnded, readEnded } from "./ended.ts";
import { readHostId } from "./host-id.ts";
import {
  endBeforeHandOff,
  isHandedOver,
  leaveSource,
  requirePlanned,
  setUpVolume,
  storedActivation,
  takeAway,
  undoAttach,
} from "./destination-setup.ts";
import { askEngine, engineStatus, lookAtEngine, startEngine, stopEngine } from "./engine-process.ts";
import {
  checkRunFolder,
  makeNewRoleFolders,
  makeRunFolder,
  removeRoleFolders,
  type RoleFolders,
} from "./layout.ts";
import {
  checkSameFile,
  displaced,
  identityAt,
  inspectDestination,
  isInPlace,
  type LocalFile,
  refuseSameDisk,
  syncDisk,
} from "./local-file.ts";
import { type DestinationEntry, type EndedDisk, isAskedFor, type Replies, type Request } from "./messages.ts";

export class DestinationRole {
  readonly #folders: RoleFolders;
  readonly #records: DestinationRecords;

  constructor(folders: RoleFolders) {
    this.#folders = folders;
    this.#records = new DestinationRecords(folders);
  }

  async inspect(
    { path, sizeBytes, force, source }: Request<"destination.inspect">,
  ): Promise<Replies["destination.inspect"]> {
    if (source.bootId === bootId()) refuseSameDisk(path, source);
    const { origin: _origin, ...facts } = await this.#inspect(path, sizeBytes, force);
    return { host: hostname(), ...facts };
  }

  /** Writes down what is to be done, after checking that it can be. */
  plan(plan: Request<"destination.plan">): Promise<null> {
    return this.#alone(async () => {
      const file = await this.#inspect(plan.path, plan.sizeBytes, plan.force);
      const folders = this.#records.folders(plan.id);
      checkRunFolder(this.#folders, join(folders.run, engineFiles.controlSocket));
      try {
        const record = plannedRecord(plan, file, this.#folders.run);
        makeNewRoleFolders(folders, (folder) => destinationJournal(folder).write(record));
      } catch (error) {
        removeRoleFolders(this.#folders, "destination", plan.id);
        throw error;
      }
      return null;
    });
  }

  /**
   * Makes the local disk and starts its engine; resolves when that is logged in to the source. If that fails,
   * everything is as it was when it was planned. What was cut short before is done over.
   */
  attach({ id, export: source }: Request<"destination.attach">): Promise<DestinationEntry> {
    return this.#alone(async () => {
      const record = this.#records.read(id);
      const folders = this.#records.folders(id);
      makeRunFolder(folders);
      requireNotAborting(this.#records, id);
      requirePlanned(record, source);
      if (record.state === "attached") return await this.#entry(id);
      if (!await endBeforeHandOff(this.#records, id)) {
        // A first write came before the set-up was cut short: what it wrote is only here.
        this.#records.write({ ...record, state: "attached" });
        if (await engineStatus(folders) === undefined) await startEngine(folders, {});
        return await this.#entry(id);
      }
      await undoAttach(this.#records, record);
      try {
        await setUpVolume(this.#records, record, source);
      } catch (error) {
        const failed = this.#records.read(id);
        if (await endBeforeHandOff(this.#records, id)) await undoAttach(this.#records, failed);
        else this.#records.write({ ...failed, state: "attached" });
        throw error;
      }
      return await this.#entry(id);
    });
  }

  /** The engine as it should be: started again if it is gone, and told where the export is now. */
  ensure({ id, export: source, force }: Request<"destination.ensure">): Promise<DestinationEntry> {
    return this.#alone(async () => {
      const record = this.#records.read(id);
      const folders = this.#records.folders(id);
      requireNotAborting(this.#records, id);
      if (record.state === "planned" || record.state === "attaching") return await this.#entry(id);
      makeRunFolder(folders);
      if (record.state !== "attached") return await this.#entry(id);
      if (source !== null) requirePlanned(record, source);
      const config = this.#records.config(id);
      const isMoved = source !== null && JSON.stringify(source) !== JSON.stringify(config.source);
      if (isMoved) this.#records.writeConfig(id, { ...config, source });
      const status = await engineStatus(folders);
      if (status === undefined) {
        checkSameFile(record.path, record, record.plan.sizeBytes, force);
        await startEngine(folders, { isForced: force });
        if (record.isReleased) await leaveSource(folders);
        if (record.bootId !== bootId()) {
          this.#records.write({ ...record, ...knownDisk(record.path), runFolder: this.#folders.run });
        }
      } else if (isMoved || (source !== null && !status.isConnected)) {
        // At once: the engine's own next attempt may be seconds away.
        await askEngine(folders, "replaceSource", source);
      }
      return await this.#entry(id);
    });
  }

  /** Alone: a migration is either handed over or given up. The engine only writes its map's header. */
  activate({ id }: Request<"destination.activate">): Promise<EngineStatus> {
    return this.#alone(() => {
      const { state } = this.#records.read(id);
      requireNotAborting(this.#records, id);
      if (state !== "attached") {
        throw new PreconditionError(`${id} is not attached yet`, {
          hint: `finish its set-up with dlsm resume ${id}`,
        });
      }
      return this.#ask(id, "activate");
    });
  }

  decideHandoff({ id }: Request<"destination.decideHandoff">): Promise<null> {
    return this.#alone(() => {
      this.#records.write({ ...this.#records.read(id), isHandoffDecided: true });
      return Promise.resolve(null);
    });
  }

  pause({ id }: Request<"destination.pause">): Promise<EngineStatus> {
    return this.#askAndKeep(id, "pause", {}, { isPaused: true });
  }

  resume({ id }: Request<"destination.resume">): Promise<EngineStatus> {
    return this.#askAndKeep(id, "resume", {}, { isPaused: false });
  }

  limit(request: Request<"destination.limit">): Promise<EngineStatus> {
    const { id, bytesPerSecond, totalBytesPerSecond } = request;
    return this.#alone(async () => {
      this.#records.write({ ...this.#records.read(id), totalBytesPerSecond });
      return await this.#keepAfter(id, "limit", { bytesPerSecond }, { bytesPerSecond });
    });
  }

  hashFetched({ id, from }: Request<"destination.hashFetched">): Promise<Replies["destination.hashFetched"]> {
    return this.#ask(id, "hashFetched", { from });
  }

  setVerified({ id, ...result }: Request<"destination.setVerified">): Promise<null> {
    return this.#alone(() => {
      this.#records.write({ ...this.#records.read(id), ...result });
      return Promise.resolve(null);
    });
  }

  /** The engine logs out of the source for good; refused while any block is absent. */
  async detachSource({ id }: Request<"destination.detachSource">): Promise<EngineStatus> {
    const record = this.#records.read(id);
    if (!isInPlace(record.path, record)) throw displaced(record.path);
    return await this.#ask(id, "detachSource");
  }

  setReleased({ id }: Request<"destination.setReleased">): Promise<null> {
    return this.#alone(() => {
      this.#records.write({ ...this.#records.read(id), isReleased: true });
      return Promise.resolve(null);
    });
  }

  allowCutover({ id, force }: Request<"destination.allowCutover">): Promise<EngineStatus | null> {
    return this.#alone(async () => {
      this.#records.write({ ...this.#records.read(id), cutover: force ? "force" : "when-unused" });
      return await engineStatus(this.#records.folders(id)) ?? null;
    });
  }

  /** The cut-over: once nobody uses the volume (or by force), the engine leaves and only the disk remains. */
  finish({ id }: Request<"destination.finish">): Promise<Replies["destination.finish"]> {
    return this.#alone(async () => {
      const record = this.#records.read(id);
      const folders = this.#records.folders(id);
      const entry = await this.#entry(id);
      const status = entry.engine;
      // Its folder is the driver's place.
      if (id.endsWith("-1") && this.#records.siblings(id).length > 1) return { isDone: false, status };
      if (record.state !== "finishing") {
        if (status === null) throw notRunning(id);
        if (status.state !== "synced") throw new PreconditionError(`${id} is not synced yet`);
        if (record.cutover === "hold") return { isDone: false, status };
        if (record.cutover === "when-unused" && status.clients > 0) return { isDone: false, status };
        if (!isInPlace(record.path, record)) throw displaced(record.path);
        this.#records.write({ ...record, state: "finishing" });
      }
      await stopEngine(folders);
      if (!isInPlace(record.path, record)) throw displaced(record.path);
      // If an engine ended badly in an earlier attempt, nobody synced what it wrote last.
      syncDisk(record.path);
      noteEnded(this.#folders, entry);
      removeRoleFolders(this.#folders, "destination", id);
      return { isDone: true, status };
    });
  }

  /**
   * Everything made here goes. After the hand-off only by force, because what was written here goes too. The first
   * request decides for all disks of the migration: when it was refused, none is given up.
   */
  abort({ id, force }: Request<"destination.abort">): Promise<Replies["destination.abort"]> {
    return this.#alone(async () => {
      if (!this.#records.ids().includes(id)) return { wasThere: false };
      await decideAbort(this.#records, id, force);
      await takeAway(this.#records, id);
      return { wasThere: true };
    });
  }

  freeze(request: Request<"destination.freeze">): Promise<null> {
    return this.#alone(() => freezeVolume(this.#records, request));
  }

  written(request: Request<"destination.written">): Promise<Replies["destination.written"]> {
    return this.#alone(() => writtenOf(this.#records, request));
  }

  unfreeze({ id }: Request<"destination.unfreeze">): Promise<null> {
    return this.#alone(() => beginThaw(this.#records, id));
  }

  thaw({ id }: Request<"destination.thaw">): Promise<null> {
    return this.#alone(() => endThaw(this.#records, id));
  }

  retire(request: Request<"destination.retire">): Promise<null> {
    return this.#alone(() => retireVolume(this.#records, request));
  }

  seed(request: Request<"destination.seed">): Promise<null> {
    return this.#alone(() => {
      requireNotAborting(this.#records, request.id);
      return seedVolume(this.#records, request);
    });
  }

  setSettled({ id }: Request<"destination.setSettled">): Promise<null> {
    return this.#alone(() => {
      this.#records.write({ ...this.#records.read(id), isSettled: true });
      return Promise.resolve(null);
    });
  }

  /** All that this role has, or only one of them. */
  async list({ id: only }: Request<"destination.list">): Promise<DestinationEntry[]> {
    const ids = this.#records.ids().filter((id) => isAskedFor(id, only));
    // Side by side, so that those that hang take no longer than one.
    return (await Promise.all(ids.map((id) => this.#listed(id)))).flat();
  }

  /** Empty if it ended meanwhile. */
  async #listed(id: string): Promise<DestinationEntry[]> {
    try {
      return [await this.#entry(id)];
    } catch (error) {
      return this.#records.ids().includes(id) ? [brokenEntry(error, await this.#running(id))] : [];
    }
  }

  async #entry(id: string): Promise<DestinationEntry> {
    // The record last: that of a migration which ends meanwhile is gone then, and not joined to figures of nothing.
    const running = await this.#running(id);
    const record = this.#records.read(id);
    const entry = entryOf(record, running);
    const isLost = running.engine !== null && record.state === "attached" && !isInPlace(record.path, record);
    return isLost ? { ...entry, problem: displaced(record.path).message } : entry;
  }

  ended({ id }: Request<"destination.ended">): EndedDisk[] {
    return readEnded(this.#folders, id);
  }

  /** What is known without the journal. */
  async #running(id: string): Promise<Running> {
    const folders = this.#records.folders(id);
    const { engine, hung } = await lookAtEngine(folders);
    return {
      id,
      host: hostname(),
      hostId: readHostId(this.#folders.state),
      nbdSocket: join(folders.run, engineFiles.nbdSocket),
      engine,
      hung,
      stored: engine === null ? readStoredStatus(folders) ?? null : null,
      isActivated: engine === null ? storedActivation(this.#records, id) : isHandedOver(engine),
      driver: readDriver(this.#folders, id),
    };
  }

  /** What the engine did is kept, so that one that is started again has it too. */
  #askAndKeep(
    id: string,
    method: string,
    params: unknown,
    kept: Partial<EngineConfig>,
  ): Promise<EngineStatus> {
    return this.#alone(() => this.#keepAfter(id, method, params, kept));
  }

  async #keepAfter(
    id: string,
    method: string,
    params: unknown,
    kept: Partial<EngineConfig>,
  ): Promise<EngineStatus> {
    const status = await this.#ask(id, method, params);
    this.#records.writeConfig(id, { ...this.#records.config(id), ...kept });
    return status;
  }

  async #ask<T = EngineStatus>(id: string, method: string, params: unknown = {}): Promise<T> {
    this.#records.read(id);
    const reply = await askEngine<T>(this.#records.folders(id), method, params);
    if (reply === undefined) throw notRunning(id);
    return reply;
  }

  async #inspect(path: string, sizeBytes: number, isForced: boolean): Promise<LocalFile> {
    const identity = identityAt(path);
    // First, because that one's engine has the disk open.
    if (identity !== null) this.#records.refuseAny((record) => record.identity === identity);
    const file = await inspectDestination(path, sizeBytes, isForced);
    this.#records.refuseAny((record) => record.path === file.path);
    return file;
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    return alone(this.#folders, work);
  }
}
