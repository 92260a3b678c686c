/** The destination role's journals and engine configurations, by the migration's id. */
import { type EngineConfig, engineConfigJournal } from "../engine/mod.ts";
import { LockedError, PreconditionError } from "../lib/errors.ts";
import { destinationJournal, type DestinationRecord } from "./destination-journal.ts";
import { place } from "./disk-facts.ts";
import { checkSameRunFolder, listIds, removeRoleFolders, type RoleFolders, roleFolders } from "./layout.ts";
import { migrationOf } from "./messages.ts";
import { unknownId } from "./source.ts";

export class DestinationRecords {
  readonly #folders: RoleFolders;

  constructor(folders: RoleFolders) {
    this.#folders = folders;
  }

  get runFolder(): string {
    return this.#folders.run;
  }

  /** Where the disk's files are. */
  folders(id: string): RoleFolders {
    return roleFolders(this.#folders, "destination", id);
  }

  remove(id: string): void {
    removeRoleFolders(this.#folders, "destination", id);
  }

  /** Throws PreconditionError if there is none, it is damaged, or belongs to another run folder. */
  read(id: string): DestinationRecord {
    const record = this.ids().includes(id) ? this.#journal(id).read() : undefined;
    if (record === undefined) throw unknownId(id);
    checkSameRunFolder({ id, ...record }, this.#folders);
    return record;
  }

  /** Undefined if there is none that can be read. Throws PreconditionError if it belongs to another run folder. */
  checked(id: string): DestinationRecord | undefined {
    const record = this.readable(id);
    if (record !== undefined) checkSameRunFolder({ id, ...record }, this.#folders);
    return record;
  }

  /** Undefined if there is none that can be read. */
  readable(id: string): DestinationRecord | undefined {
    try {
      return this.#journal(id).read();
    } catch {
      return undefined;
    }
  }

  write(record: DestinationRecord): void {
    this.#journal(record.plan.id).write(record);
  }

  ids(): string[] {
    return listIds(this.#folders, "destination");
  }

  /** The disks of the same migration, this one among them. */
  siblings(id: string): string[] {
    return this.ids().filter((each) => migrationOf(each) === migrationOf(id));
  }

  /** Throws LockedError if a migration that can be read is like this. */
  refuseAny(isSame: (record: DestinationRecord) => boolean): void {
    for (const id of this.ids()) {
      const record = this.readable(id);
      if (record === undefined || !isSame(record)) continue;
      throw new LockedError(`${place(record.path)} is already the destination of ${id}`, {
        hint: `see dlsm status ${id}; end it with dlsm abort ${id}, or name another destination`,
      });
    }
  }

  config(id: string): EngineConfig {
    const journal = this.#config(id);
    const config = journal.read();
    if (config !== undefined) return config;
    throw new PreconditionError(`the configuration of the engine of ${id}, ${journal.path}, is missing`, {
      hint: `restore it from a backup, or give up with dlsm abort ${id}`,
    });
  }

  writeConfig(id: string, config: EngineConfig): void {
    this.#config(id).write(config);
  }

  #journal(id: string) {
    return destinationJournal(this.folders(id).state);
  }

  #config(id: string) {
    return engineConfigJournal(this.folders(id).state);
  }
}
