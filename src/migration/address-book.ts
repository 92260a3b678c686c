/**
 * Where the hosts of migrations are that were begun from this machine: only a help for whoever gives commands
 * here. Without it `--host` finds them; nothing is lost with it.
 */
import { existsSync, readdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { removeFileDurably } from "../lib/atomic-file.ts";
import { Journal } from "../lib/journal.ts";
import { ensureFolder } from "../lib/paths.ts";
import { isMigrationId } from "../role/mod.ts";

const addressesSchema = v.object({
  /** As ssh reaches them from here; null: this machine. */
  source: v.nullable(v.string()),
  destination: v.nullable(v.string()),
  /** What the user gave as `--handoff-command`: it is only ever run here, and from here. */
  handoffCommand: v.optional(v.nullable(v.string()), null),
});
export type Addresses = v.InferOutput<typeof addressesSchema>;

export class AddressBook {
  readonly #folder: string;

  constructor(stateFolder: string) {
    this.#folder = join(stateFolder, "hosts");
  }

  ids(): string[] {
    return existsSync(this.#folder) ? readdirSync(this.#folder).filter(isMigrationId).sort() : [];
  }

  /** Undefined if it is not in the book, or cannot be read. */
  find(id: string): Addresses | undefined {
    try {
      return this.#journal(id).read();
    } catch {
      return undefined;
    }
  }

  add(id: string, addresses: Addresses): void {
    ensureFolder({ path: this.#folder, isShared: false }, "folder", "DLSM_STATE_DIR");
    this.#journal(id).write(addresses);
  }

  /** After it has been run; an entry without it that says nothing else goes. */
  forgetCommand(id: string): void {
    const known = this.find(id);
    if (known === undefined || known.handoffCommand === null) return;
    if (known.source === null && known.destination === null) this.remove(id);
    else this.add(id, { ...known, handoffCommand: null });
  }

  remove(id: string): void {
    if (!existsSync(this.#folder)) return;
    removeFileDurably(this.#journal(id).path);
    try {
      rmdirSync(this.#folder);
    } catch {
      // Others are in it.
    }
  }

  #journal(id: string): Journal<Addresses> {
    return new Journal(join(this.#folder, id), "hosts", 1, (value) => v.parse(addressesSchema, value));
  }
}
