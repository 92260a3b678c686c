import { Buffer } from "node:buffer";
import { spawn } from "node:child_process";
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { readFileLimited, removeFileDurably, writeFileAtomic } from "../../src/lib/atomic-file.ts";
import { FailedError, PreconditionError } from "../../src/lib/errors.ts";
import { Journal, JournalError } from "../../src/lib/journal.ts";
import { isRoot } from "../helpers/needs.ts";
import { tempFolder } from "../helpers/temp.ts";

interface Record {
  readonly id: string;
  readonly sizeBytes: number;
  readonly list: readonly unknown[];
}

function validate(value: unknown): Record {
  const record = value as Record;
  if (typeof record?.id !== "string" || typeof record.sizeBytes !== "number") {
    throw new Error("no id or size");
  }
  return record;
}

const record: Record = { id: "m1", sizeBytes: 2 ** 45, list: [null, true, "ä", { nested: [1.5] }] };

function journalIn(folder: string, kind = "migration", version = 3): Journal<Record> {
  return new Journal(join(folder, "journal"), kind, version, validate);
}

function journalError(read: () => unknown): JournalError {
  try {
    read();
  } catch (error) {
    if (error instanceof JournalError) return error;
    throw error;
  }
  throw new Error("the journal was accepted");
}

const test = suite("journal and atomic files");

test("read() gives what write() stored, and undefined before the first and after remove()", () => {
  const folder = tempFolder();
  const journal = journalIn(folder);
  assert.is(journal.read(), undefined);
  journal.write(record);
  assert.equal(journalIn(folder).read(), record);
  journal.write({ ...record, id: "m2" });
  assert.is(journal.read()!.id, "m2");
  assert.is(statSync(journal.path).mode & 0o777, 0o600);
  assert.equal(readdirSync(folder), ["journal"]);
  journal.remove();
  journal.remove();
  assert.is(journal.read(), undefined);
});

test("read() refuses every truncation, every flipped bit and bytes that follow", () => {
  const folder = tempFolder();
  const journal = journalIn(folder);
  journal.write(record);
  const good = readFileSync(journal.path);
  const refusedAs = (bytes: Uint8Array) => {
    writeFileSync(journal.path, bytes);
    const error = journalError(() => journal.read());
    assert.match(error.message, journal.path);
    assert.is(error.path, journal.path);
    assert.ok(error.hint!.length > 0);
    return error;
  };
  for (let length = 0; length < good.length; length++) {
    assert.match(refusedAs(good.subarray(0, length)).message, "damaged");
  }
  for (let bit = 0; bit < good.length * 8; bit++) {
    const bad = Buffer.from(good);
    bad[bit >> 3] ^= 1 << (bit & 7);
    refusedAs(bad);
  }
  refusedAs(Buffer.concat([good, Buffer.of(0)]));
  writeFileSync(journal.path, good);
  assert.equal(journal.read(), record);
});

test("read() of any bytes is a JournalError", () => {
  const journal = journalIn(tempFolder());
  journal.write(record);
  const header = readFileSync(journal.path).subarray(0, 48);
  fc.assert(fc.property(fc.boolean(), fc.uint8Array({ maxLength: 200 }), (withHeader, bytes) => {
    writeFileSync(journal.path, withHeader ? Buffer.concat([header, bytes]) : bytes);
    journalError(() => journal.read());
  }));
});

test("read() tells a foreign file, another kind, a newer version and senseless content apart", () => {
  const folder = tempFolder();
  const journal = journalIn(folder);
  writeFileSync(journal.path, "[settings]\nsomething = else\n");
  assert.match(journalError(() => journal.read()).message, "not a dlsm journal");

  journalIn(folder, "volume").write(record);
  assert.match(journalError(() => journal.read()).message, 'a "volume" record where a "migration"');

  journalIn(folder, "migration", 4).write(record);
  const newer = journalError(() => journal.read());
  assert.match(newer.message, "record version 4, this one knows up to 3");
  assert.match(newer.hint!, "newer dlsm");
  assert.ok(newer instanceof PreconditionError);

  new Journal<unknown>(journal.path, "migration", 3, (value) => value).write({ wrong: true });
  assert.match(journalError(() => journal.read()).message, "no id or size");
});

test("read() gives validate() the version that an older record was written with", () => {
  const folder = tempFolder();
  journalIn(folder, "migration", 2).write(record);
  let seen: number | undefined;
  new Journal(join(folder, "journal"), "migration", 3, (value, version) => {
    seen = version;
    return value;
  }).read();
  assert.is(seen, 2);
});

test("read() of a folder, or of a giant file, is a JournalError", () => {
  const folder = tempFolder();
  mkdirSync(join(folder, "journal"));
  assert.match(journalError(() => journalIn(folder).read()).message, "EISDIR");
  const other = tempFolder();
  writeFileSync(join(other, "journal"), Buffer.alloc(17 * 1024 * 1024));
  assert.match(journalError(() => journalIn(other).read()).message, "at most");
});

test("write() that fails is a FailedError and keeps the old record, with nothing beside it", () => {
  const folder = tempFolder();
  const missing = new Journal(join(folder, "missing", "journal"), "migration", 1, validate);
  try {
    missing.write(record);
    assert.unreachable();
  } catch (error) {
    assert.instance(error, FailedError);
    assert.match((error as FailedError).message, missing.path);
  }
  const journal = journalIn(folder);
  journal.write(record);
  assert.throws(() => journal.write({ ...record, list: [new Date()] }), /plain data/);
  if (!isRoot) {
    chmodSync(folder, 0o500);
    assert.throws(() => journal.write({ ...record, id: "m2" }), /EACCES/);
    chmodSync(folder, 0o700);
  }
  assert.equal(journal.read(), record);
  assert.equal(readdirSync(folder), ["journal"]);
});

test("a process killed while it writes leaves one whole record", async () => {
  const folder = tempFolder();
  const script = join(import.meta.dirname!, "fixtures-writer.ts");
  const runtimeArguments = "Deno" in globalThis ? ["run", "-A"] : [];
  for (let round = 0; round < 3; round++) {
    const child = spawn(process.execPath, [...runtimeArguments, script, join(folder, "journal")], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const end = new Promise((resolve) => child.once("exit", resolve));
    // It says a line after every tenth write and goes on: the kill falls somewhere in the writes after.
    await new Promise<void>((resolve) => {
      let lines = 0;
      child.stdout!.on("data", () => ++lines > round && resolve());
    });
    child.kill("SIGKILL");
    await end;
    const found = journalIn(folder).read()!;
    assert.is(found.list.length, 1);
    assert.is((found.list[0] as string).length, 10_000);
  }
});

test("writeFileAtomic() replaces a file and its mode, removeFileDurably() removes it", () => {
  const path = join(tempFolder(), "file");
  writeFileSync(path, "old and longer", { mode: 0o644 });
  writeFileAtomic(path, Buffer.from("new"));
  assert.is(readFileSync(path, "utf8"), "new");
  assert.is(statSync(path).mode & 0o777, 0o600);
  removeFileDurably(path);
  removeFileDurably(path);
  assert.is(readFileLimited(path, 10), undefined);
});

test("readFileLimited() reads up to its limit and refuses beyond it", () => {
  const path = join(tempFolder(), "file");
  for (const length of [0, 1, 100]) {
    writeFileSync(path, Buffer.alloc(length, "x"));
    assert.is(readFileLimited(path, 100)!.length, length);
  }
  writeFileSync(path, Buffer.alloc(101));
  assert.throws(() => readFileLimited(path, 100), (error: unknown) => error instanceof RangeError);
});

test.run();
