/** Bugs that the simulation has to find: each a change of the real code. */
import type { Change } from "./bundle.ts";

export interface Planted {
  readonly name: string;
  readonly changes: readonly Change[];
  /** Seeds from 1 on, within which it is found. */
  readonly budget: number;
}

export const planted: readonly Planted[] = [
  {
    name: "the disk is made read-only before the journal says so",
    changes: [{
      file: "role/source-fence.ts",
      from:
        "if (standing === null) write(journal, record, { original, kinds: [], notes: [], baseline: null });",
      to: "",
    }],
    budget: 600,
  },
  {
    name: "the source is released before every block is here",
    changes: [
      {
        file: "migration/machine.ts",
        from: 'if (phaseOf(destination) === "synced") {',
        to: 'if (engine.state !== "attached") {',
      },
      { file: "migration/machine.ts", from: 'if (!engine.isSourceDetached) return step("logOut");', to: "" },
    ],
    budget: 60,
  },
  {
    name: "an abort leaves the file that was made",
    changes: [{
      file: "role/destination-setup.ts",
      from: "if (isTouched) unmakeLocalFile(record.path, record.identity, record.origin);",
      to: "",
    }],
    budget: 60,
  },
  {
    name: "the host's lock is not taken",
    changes: [{
      file: "role/alone.ts",
      from: "return withLock(lockPath(folders), options, work);",
      to: "void withLock; void options; return work();",
    }],
    budget: 120,
  },
  {
    name: "the driver's place is given to everybody",
    changes: [{
      file: "role/driver.ts",
      from:
        "const lock = folders !== undefined && existsSync(folders.run) ? acquire(folders.run) : undefined;",
      to:
        "const lock = folders && existsSync(folders.run) ? acquire(folders.run) ?? { release() {} } : undefined;",
    }],
    budget: 100,
  },
  {
    name: "a release forgets the fence",
    changes: [{
      file: "role/source.ts",
      from: ": (await unfenceDisk(this.#journal(id), record, force)).note;",
      to: ": null;",
    }],
    budget: 20,
  },
  {
    name: "an abort after the hand-off is not refused",
    changes: [
      { file: "role/destination-abort.ts", from: "if (isActive && !isForced) throw handedOver(id);", to: "" },
      {
        file: "role/destination-abort.ts",
        from: "if (!isForced) await endAll(records, open);",
        to: "void endAll;",
      },
    ],
    budget: 200,
  },
  {
    name: "volumes are activated before their sources are fenced",
    changes: [{
      file: "migration/hand-off.ts",
      from: "  try {\n    for (const { id, options } of waiting) {",
      to:
        '  try {\n    for (const { id } of waiting) await context.destination.ask("destination.activate", { id });\n' +
        "    for (const { id, options } of waiting) {",
    }],
    budget: 60,
  },
  {
    name: "a journal is renamed into its place before it is durable",
    changes: [{
      file: "lib/atomic-file.ts",
      from: "      fsyncSync(file);\n    } finally {",
      to: "    } finally {",
    }],
    budget: 200,
  },
  {
    name: "what an abort takes away is not written down before",
    changes: [{
      file: "role/destination-abort.ts",
      from: 'records.write({ ...record, state: "aborting" });',
      to: "",
    }],
    budget: 200,
  },
];
