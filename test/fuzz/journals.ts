/** What a host remembers: journals, the ids and addresses of hosts, the migrations that ended. */
import { createHash } from "node:crypto";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { encodeCbor } from "../../src/lib/cbor.ts";
import { Journal, JournalError } from "../../src/lib/journal.ts";
import { AddressBook } from "../../src/migration/address-book.ts";
import { statusesOf } from "../../src/migration/status.ts";
import { statusLines } from "../../src/report/mod.ts";
import { endedName, readEnded } from "../../src/role/ended.ts";
import { hostIdName, readHostId } from "../../src/role/host-id.ts";
import * as assert from "uvu/assert";
import { tempFolder } from "../helpers/temp.ts";
import { attempt, same } from "./expect.ts";
import { joined, type Mutated, mutated } from "./mutation.ts";
import { ended, id, type JournalKind, journalKinds } from "./records.ts";
import { type Target, target } from "./target.ts";
import { reshaped, type Reshaping, reshapings } from "./values.ts";

/** The layout that lib/journal.ts describes. */
function encode(kind: string, version: number, value: unknown): Uint8Array {
  const payload = encodeCbor({ kind, value });
  const numbers = new Uint8Array(8);
  new DataView(numbers.buffer).setUint32(0, version);
  new DataView(numbers.buffer).setUint32(4, payload.length);
  const digest = createHash("sha256").update(numbers).update(payload).digest();
  return joined(new TextEncoder().encode("dlsmjrnl"), numbers, digest, payload);
}

/** What the journal's file says with this in it. */
function readFrom(journal: Journal<unknown>, bytes: Uint8Array) {
  writeFileSync(journal.path, bytes);
  const outcome = attempt([JournalError], () => journal.read());
  if (outcome.error !== undefined) {
    const { message, hint } = outcome.error as JournalError;
    assert.ok(message.includes(journal.path), "the message does not name the file");
    assert.ok(hint !== undefined && hint !== "", "nothing says what to do");
  }
  return outcome;
}

let made: JournalKind[] | undefined;
/** Made at first use: who asks for another target needs no folders. */
const kinds = () => made ??= journalKinds();
const kindNames = ["source", "destination", "engine", "other"];
const kindOf = (name: string) => kinds().find((kind) => kind.name === name)!;
const anyKind = fc.constantFrom(...kindNames);

const files = target<Mutated<string>>({
  name: "journal-file",
  inputs: mutated(anyKind, (name) => encode(name, kindOf(name).version, kindOf(name).sample)),
  runs: 1000,
  check({ bytes, value: name, isDamaged }) {
    const { journal, sample } = kindOf(name);
    const { value, error } = readFrom(journal, bytes);
    assert.is(
      error !== undefined,
      isDamaged,
      isDamaged ? "damage is not noticed" : "a sound file is refused",
    );
    if (error !== undefined) return "refused";
    same(value, sample, "the record");
    return "accepted";
  },
});

const mixUps = target<{ written: string; read: string; version: number; isOld: boolean }>({
  name: "journal-mix-up",
  inputs: fc.record({ written: anyKind, read: anyKind, version: fc.nat(4), isOld: fc.boolean() }),
  runs: 800,
  check({ written, read, version, isOld }) {
    const { sample, later } = kindOf(written);
    const record = { ...sample as Record<string, unknown> };
    if (isOld) { for (const name of later) delete record[name]; }
    const { error } = readFrom(kindOf(read).journal, encode(written, version, record));
    const isRight = written === read && version <= kindOf(read).version;
    assert.is(
      error === undefined,
      isRight,
      error?.message ?? "another journal's file is taken for this one's",
    );
    return isRight ? "accepted" : "refused";
  },
});

/** Once the message quoted what stood there; once the record of another migration was believed. */
const broken: readonly Reshaping[][] = [
  [{ kind: "put", at: 0, value: "\u001b[2J" }],
  [{ kind: "put", at: 1, value: "wxyz1234" }],
  [{ kind: "put", at: 3, value: "wxyz1234" }],
];

/** Records that are whole, but say what no dlsm would. */
const contents = kindNames.filter((name) => name !== "other").map((name) =>
  target<Reshaping[]>({
    name: `journal-${name}`,
    inputs: reshapings,
    regressions: broken,
    runs: 500,
    check(changes) {
      const { journal, sample, version } = kindOf(name);
      const { value, error } = readFrom(journal, encode(name, version, reshaped(sample, changes)));
      assert.ok(changes.length > 0 || error === undefined, "a sound record is refused");
      if (error !== undefined) return "refused";
      const again = readFrom(journal, encode(name, version, value));
      same(again.value, value, "the record, written and read again");
      // What belongs to another migration is not this one's, whole as it may be.
      assert.is(
        idOf(value as Record<string, unknown>) ?? id,
        id,
        "a record of another migration is believed",
      );
      return "accepted";
    },
  })
);

function idOf(record: Record<string, unknown>): unknown {
  return record.id ?? (record.plan as { id?: unknown } | undefined)?.id;
}

const hostId = target<Mutated<string>>({
  name: "host-id",
  inputs: mutated(fc.stringMatching(/^[0-9a-f]{32}$/), (text) => new TextEncoder().encode(`${text}\n`), {
    words: ["\n", "A", " "],
  }),
  runs: 800,
  check({ bytes, value, isDamaged }) {
    writeFileSync(join(folder(), hostIdName), bytes);
    const found = readHostId(folder());
    if (!isDamaged) assert.is(found, value);
    if (found === null) return "refused";
    assert.match(found, /^[0-9a-f]{32}$/);
    return "accepted";
  },
});

let temporary: string | undefined;
const folder = () => temporary ??= tempFolder("fuzz");

const addressBook = target<{ changes: Reshaping[]; file: Mutated<null>; isFile: boolean }>({
  name: "address-book",
  inputs: fc.record({
    changes: reshapings,
    file: mutated(fc.constant(null), () => encode("hosts", 1, addresses)),
    isFile: fc.boolean(),
  }),
  runs: 600,
  check({ changes, file, isFile }) {
    const path = join(folder(), "hosts", id);
    mkdirSync(join(folder(), "hosts"), { recursive: true });
    const isSound = isFile ? !file.isDamaged : changes.length === 0;
    writeFileSync(path, isFile ? file.bytes : encode("hosts", 1, reshaped(addresses, changes)));
    const found = new AddressBook(folder()).find(id);
    if (isSound) same(found, addresses, "the entry");
    if (found === undefined) return "refused";
    assert.ok(isSound || !isFile, "damage is not noticed");
    for (const value of Object.values(found)) assert.ok(value === null || typeof value === "string");
    return "accepted";
  },
});

const addresses = { source: "root@node1", destination: null, handoffCommand: "virsh migrate" };

/** What `dlsm status` says of a migration that ended here. */
const endedMigrations = target<Reshaping[]>({
  name: "ended-migrations",
  inputs: reshapings,
  // Its id was a record: the status could not be told.
  regressions: [[{ kind: "copy", at: 8, from: 0 }]],
  runs: 500,
  check(changes) {
    writeFileSync(join(folder(), endedName), encode("ended", 1, reshaped(ended, changes)));
    const found = readEnded({ state: folder(), run: folder() });
    if (changes.length === 0) same(found, ended, "what ended");
    const lines = statusesOf([], found.map(({ entry }) => entry)).flatMap(statusLines);
    assert.ok(lines.every((line) => typeof line === "string"));
    rmSync(join(folder(), endedName));
    return found.length > 0 ? "accepted" : "refused";
  },
});

export const journalTargets: readonly Target[] = [
  files,
  mixUps,
  ...contents,
  hostId,
  addressBook,
  endedMigrations,
];
