/**
 * The source role: exports one disk per migration, read-only, and takes the export away again.
 *
 * Each change is in the journal before it is made; each request can be repeated.
 */
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { join } from "node:path";
import type { SourceExport } from "../engine/mod.ts";
import { DlsmError, FailedError, LockedError, messageOf, PreconditionError } from "../lib/errors.ts";
import { adoptDaemon, type Daemon, endStrays, isTgtError, startDaemon } from "../node-iscsi-target/mod.ts";
import { alone } from "./alone.ts";
import { cannotTell, inspectSource, place } from "./disk-facts.ts";
import { compareDisk, knownDisk } from "./disk-identity.ts";
import { changeOf, FenceWatch } from "./fence-watch.ts";
import { hashExtents } from "./hash.ts";
import { readHostId } from "./host-id.ts";
import {
  checkRunFolder,
  checkSameRunFolder,
  listIds,
  makeNewRoleFolders,
  makeRunFolder,
  removeRoleFolders,
  type RoleFolders,
  roleFolders,
} from "./layout.ts";
import { isAskedFor, migrationOf, type Replies, type Request, type SourceEntry } from "./messages.ts";
import { behindFence, fenceDisk, keepFence, liftFence, unfenceDisk } from "./source-fence.ts";
import { sourceJournal, type SourceRecord } from "./source-journal.ts";

export class SourceRole {
  readonly #folders: RoleFolders;
  readonly #watch = new FenceWatch();

  constructor(folders: RoleFolders) {
    this.#folders = folders;
  }

  inspect({ path }: Request<"source.inspect">): Replies["source.inspect"] {
    const { direct: _direct, ...facts } = inspectSource(path);
    return facts;
  }

  /** Sets up the export. All or nothing. */
  export(request: Request<"source.export">): Promise<SourceExport> {
    return this.#alone(async () => {
      const disk = inspectSource(request.path);
      this.#refuseSecond(disk.identity, disk.path);
      checkRunFolder(this.#folders, join(roleFolders(this.#folders, "source", request.id).run, "tgt", "s.1"));
      const record: SourceRecord = {
        id: request.id,
        createdAt: new Date().toISOString(),
        path: disk.path,
        ...knownDisk(disk.path),
        runFolder: this.#folders.run,
        isFile: disk.isFile,
        direct: disk.direct,
        portal: request.portal,
        allow: request.allow,
        tunnel: request.tunnel,
        destination: request.destination,
        state: "exporting",
        export: {
          address: request.portal.address,
          // Until tgtd has said which one it is; a record in the state "exporting" is not used.
          port: request.portal.port || 1,
          targetName: `iqn.2026-01.local.dlsm:${request.id}.${randomBytes(12).toString("hex")}`,
          serial: `dlsm-${request.id}`,
          chap: { incoming: newCredentials(), outgoing: newCredentials() },
          sizeBytes: disk.sizeBytes,
          blockBytes: disk.blockBytes,
          // tgt tells the holes of files only, and those are zero.
          holesReadZero: disk.isFile,
          tunnel: request.tunnel,
        },
        fence: null,
      };
      try {
        const folders = roleFolders(this.#folders, "source", request.id);
        makeNewRoleFolders(folders, (folder) => sourceJournal(folder).write(record));
        return await this.#serve(record);
      } catch (error) {
        await this.#takeAway(request.id);
        throw error;
      }
    });
  }

  /** The export as it should be, set up again if tgtd is gone (killed, or the machine was restarted). */
  ensure({ id, force }: Request<"source.ensure">): Promise<SourceExport> {
    return this.#alone(async () => {
      const record = this.#record(id);
      if (record.state === "releasing") {
        throw new PreconditionError(`the export of ${place(record.path)} (${id}) is being released`, {
          hint: `finish that with dlsm ${record.destination === null ? "release" : "abort"} ${
            migrationOf(id)
          }`,
        });
      }
      const daemon = await this.#daemon(id);
      if (record.state === "exported" && daemon !== undefined) {
        const targets = await daemon.targets();
        if (targets.some(({ name }) => name === record.export.targetName)) {
          await keepFence(this.#journal(id));
          return record.export;
        }
      }
      await daemon?.stop();
      const disk = inspectSource(record.path);
      const verdict = compareDisk(record, disk.path);
      if (verdict === "unknown" && !force) throw cannotTell(disk.path);
      if (verdict === "different" || disk.sizeBytes !== record.export.sizeBytes) {
        throw new PreconditionError(`${place(record.path)} is no longer the disk that was exported`, {
          hint: "bring the disk back to this path",
        });
      }
      const known = { ...record, ...knownDisk(disk.path), runFolder: this.#folders.run };
      return await behindFence(this.#journal(id), known, (ready) => this.#serve(ready));
    });
  }

  /** Makes the disk read-only for the time after the hand-off. Can be repeated. */
  fence({ id, force }: Request<"source.fence">): Promise<Replies["source.fence"]> {
    return this.#alone(async () => {
      const record = this.#record(id);
      if (record.state !== "exported") {
        throw new PreconditionError(
          `the export of ${place(record.path)} (${id}) is not in use: it is ${record.state}`,
          {
            hint: `see dlsm status ${migrationOf(id)}`,
          },
        );
      }
      const daemon = await this.#daemon(id);
      return await fenceDisk(this.#journal(id), record, force, daemon === undefined ? [] : [daemon.pid]);
    });
  }

  /** The fenced disk may be written by whoever it goes back to; that its content stays is still watched. */
  lift({ id }: Request<"source.lift">): Promise<null> {
    return this.#alone(() => liftFence(this.#journal(id), this.#record(id)));
  }

  changed({ id }: Request<"source.changed">): string | null {
    return changeOf(this.#record(id));
  }

  /** Gives the disk back as it was before `fence`. Can be repeated. */
  unfence({ id, force }: Request<"source.unfence">): Promise<Replies["source.unfence"]> {
    return this.#alone(() => unfenceDisk(this.#journal(id), this.#record(id), force === true));
  }

  async hash({ id, pieces }: Request<"source.hash">): Promise<Uint8Array[]> {
    const record = this.#record(id);
    return await hashExtents(record.path, record.export.sizeBytes, pieces);
  }

  /**
   * Takes one export away, or all of a migration; the disks stay. Refused, unless forced, while a destination
   * needs one of them: it is logged in, or the hand-off has happened.
   */
  release({ id, force }: Request<"source.release">): Promise<Replies["source.release"]> {
    return this.#alone(async () => {
      const ids = listIds(this.#folders, "source").filter((each) => isAskedFor(each, id));
      if (!force) { for (const each of ids) await this.#refuseIfNeeded(each); }
      const notes: string[] = [];
      for (const each of ids) notes.push(...await this.#release(each, force));
      return { wasThere: ids.length > 0, note: notes.join("; ") || null };
    });
  }

  async #release(id: string, force: boolean): Promise<string[]> {
    const record = readOrUndefined(() => this.#journal(id).read());
    if (record !== undefined) checkSameRunFolder(record, this.#folders);
    const note = record === undefined
      ? "whether the source was made read-only is not known, because its journal cannot be read " +
        "(if it was, it takes chattr -i and chmod u+w, or blockdev --setrw for a device)"
      : (await unfenceDisk(this.#journal(id), record, force)).note;
    if (record !== undefined) this.#journal(id).write({ ...record, fence: null, state: "releasing" });
    await this.#takeAway(id);
    return note === null ? [] : [note];
  }

  /** All that this role has, or only one of them. */
  async list({ id: only }: Request<"source.list">): Promise<SourceEntry[]> {
    const entries: SourceEntry[] = [];
    const hostId = readHostId(this.#folders.state);
    for (const id of listIds(this.#folders, "source")) {
      if (!isAskedFor(id, only)) continue;
      const tgtdPid = (await this.#daemon(id))?.pid ?? null;
      try {
        const record = this.#record(id);
        const { createdAt, state, path, destination, export: { sizeBytes } } = record;
        const source = { host: hostname(), path, reach: null, hostId };
        const fenced = {
          fence: record.fence?.baseline ? { kinds: record.fence.kinds } : null,
          danger: this.#watch.danger(record, tgtdPid === null ? [] : [tgtdPid]),
        };
        entries.push({
          id,
          createdAt,
          state,
          source,
          destination,
          sizeBytes,
          tgtdPid,
          ...fenced,
          problem: null,
        });
      } catch (error) {
        // Unless it ended meanwhile.
        if (!listIds(this.#folders, "source").includes(id)) continue;
        entries.push({
          id,
          createdAt: "",
          state: "exporting",
          source: { host: hostname(), path: "", reach: null, hostId },
          destination: null,
          sizeBytes: 0,
          tgtdPid,
          fence: null,
          danger: null,
          problem: describe(error),
        });
      }
    }
    return entries;
  }

  /** Starts tgtd and exports the record's disk; the record is complete afterwards. */
  async #serve(record: SourceRecord): Promise<SourceExport> {
    const exported: SourceExport = { ...record.export, port: await this.#listen(record) };
    this.#journal(record.id).write({ ...record, state: "exported", export: exported });
    return exported;
  }

  /** Back on the port that the destination knows, where it is still free. */
  async #listen(record: SourceRecord): Promise<number> {
    const { address, port } = record.portal;
    const known = record.state === "exported" ? record.export.port : port;
    try {
      return await this.#start(record, address, known);
    } catch (error) {
      // A ticket that somebody has been given names the port.
      const isFree = port === 0 && record.destination !== null;
      const mayMove = isFree && known !== 0 && isTgtError(error) && error.reason === "portInUse";
      if (!mayMove) throw userError(error, record);
      return await this.#start(record, address, 0).catch((second) => {
        throw userError(second, record);
      });
    }
  }

  /** The port that it listens on. */
  async #start(record: SourceRecord, address: string, port: number): Promise<number> {
    const folders = roleFolders(this.#folders, "source", record.id);
    makeRunFolder(folders);
    const daemon = await startDaemon({ folder: join(folders.run, "tgt"), portal: { address, port } });
    const { targetName, serial, blockBytes, chap } = record.export;
    const { path, allow, direct } = record;
    try {
      const { portal } = await daemon.exportDisk({
        path,
        targetName,
        serial,
        blockBytes,
        allow,
        chap,
        direct,
      });
      return portal.port;
    } catch (error) {
      await daemon.stop();
      throw error;
    }
  }

  async #takeAway(id: string): Promise<void> {
    await (await this.#daemon(id))?.stop();
    await endStrays(join(roleFolders(this.#folders, "source", id).run, "tgt"));
    removeRoleFolders(this.#folders, "source", id);
  }

  #refuseSecond(identity: string, path: string): void {
    for (const id of listIds(this.#folders, "source")) {
      const record = readOrUndefined(() => this.#journal(id).read());
      if (record?.identity !== identity) continue;
      const migration = migrationOf(id);
      throw new LockedError(`${place(path)} is already being migrated (${migration})`, {
        hint:
          `see dlsm status ${migration}; end it with dlsm abort ${migration}, or dlsm release ${migration}`,
      });
    }
  }

  /** After the hand-off the destination needs it also while the link is cut and nobody is logged in. */
  async #refuseIfNeeded(id: string): Promise<void> {
    const record = readOrUndefined(() => this.#journal(id).read());
    if (record?.destination != null && record.fence !== null) throw beingMigrated(record);
    const daemon = await this.#daemon(id);
    if (daemon === undefined) return;
    for (const { tid } of await daemon.targets()) {
      if ((await daemon.connections(tid)).length === 0) continue;
      throw new PreconditionError(`the destination is still logged in to ${id}`, {
        hint: "it logs out when it has all blocks; --force takes the export away all the same",
      });
    }
  }

  #record(id: string): SourceRecord {
    const record = listIds(this.#folders, "source").includes(id) ? this.#journal(id).read() : undefined;
    if (record === undefined) throw unknownId(id);
    checkSameRunFolder(record, this.#folders);
    return record;
  }

  #journal(id: string) {
    return sourceJournal(roleFolders(this.#folders, "source", id).state);
  }

  #daemon(id: string): Promise<Daemon | undefined> {
    return adoptDaemon(join(roleFolders(this.#folders, "source", id).run, "tgt"));
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    return alone(this.#folders, work);
  }
}

function beingMigrated({ id, path, destination }: SourceRecord): PreconditionError {
  const migration = migrationOf(id);
  const to = `${destination!.host}:${destination!.path}`;
  return new PreconditionError(`${place(path)} is being migrated to ${to} (${migration})`, {
    hint:
      `dlsm resume ${migration} goes on with that, dlsm abort ${migration} gives it up; with --force the ` +
      "export goes all the same, and what was not copied yet cannot be read there any more",
  });
}

export function unknownId(id: string): PreconditionError {
  return new PreconditionError(`there is no migration ${id} on ${hostname()}`, {
    hint: "dlsm status lists them",
  });
}

/** CHAP secrets: 16 bytes of randomness, as text that every target takes. */
function newCredentials() {
  return { user: `u${randomBytes(6).toString("hex")}`, secret: randomBytes(16).toString("hex") };
}

function userError(error: unknown, { path, portal }: SourceRecord): unknown {
  if (!isTgtError(error)) return error;
  if (error.reason === "portInUse") {
    return new PreconditionError(
      `cannot export ${place(path)}: port ${portal.port} of ${portal.address} is in use by another program`,
      { hint: "name another port with --portal, or leave the port out for any free one", cause: error },
    );
  }
  if (error.reason === "addressNotAvailable") {
    return new PreconditionError(
      `cannot export ${place(path)}: ${portal.address} is not an address of ${hostname()}`,
      { hint: "name one of this host's addresses with --portal (ip address lists them)", cause: error },
    );
  }
  if (error.reason === "notInstalled") {
    return new PreconditionError(`cannot export ${place(path)}: tgt is not installed on ${hostname()}`, {
      hint: "install it there: apt install tgt",
      cause: error,
    });
  }
  const message = `cannot export ${place(path)}: ${error.message}`;
  const isOurs = error.reason === "badReply" || error.reason === "startFailed" || error.reason === "timeout";
  const details = { hint: error.hint, cause: error };
  return isOurs ? new FailedError(message, details) : new PreconditionError(message, details);
}

function readOrUndefined<T>(read: () => T | undefined): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

function describe(error: unknown): string {
  const hint = error instanceof DlsmError && error.hint !== undefined ? `: ${error.hint}` : "";
  return messageOf(error) + hint;
}
