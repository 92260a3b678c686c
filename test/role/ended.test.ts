import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Journal } from "../../src/lib/journal.ts";
import { endedName, noteEnded, readEnded } from "../../src/role/ended.ts";
import { tempFolder } from "../helpers/temp.ts";
import { destination } from "../migration/entries.ts";

const test = suite("what ended");

function folders() {
  const state = tempFolder();
  return { state, run: state };
}

test("is told by the migration's id and by its disks', once each", () => {
  const own = folders();
  assert.equal(readEnded(own), []);
  for (const id of ["abcd1234-1", "abcd1234-2", "wxyz1234", "abcd1234-1"]) {
    noteEnded(own, { ...destination, id });
  }
  const ids = (only?: string) => readEnded(own, only).map(({ entry }) => entry.id);
  assert.equal(ids("abcd1234"), ["abcd1234-2", "abcd1234-1"]);
  assert.equal(ids("abcd1234-2"), ["abcd1234-2"]);
  assert.equal(ids("wxyz1234"), ["wxyz1234"]);
  assert.equal(readEnded(own, "wxyz1234")[0]!.entry, { ...destination, id: "wxyz1234" });
});

test("is the last hundred", () => {
  const own = folders();
  for (let at = 0; at < 120; at++) noteEnded(own, { ...destination, id: `id${at}abc` });
  const kept = readEnded(own);
  assert.equal([kept.length, kept[0]!.entry.id, kept[99]!.entry.id], [100, "id20abc", "id119abc"]);
});

test("is nothing where it cannot be read, and never in the way", () => {
  const own = folders();
  writeFileSync(join(own.state, "ended"), "no journal");
  assert.equal(readEnded(own), []);
  noteEnded(own, destination);
  assert.is(readEnded(own).length, 1);
  const missing = { state: join(own.state, "missing"), run: own.run };
  noteEnded(missing, destination);
  assert.equal(readEnded(missing), []);
});

test("of an older version, which kept no verification, is told as well; what makes no sense is left out", () => {
  const own = folders();
  const { verified: _, verifiedBytes: __, ...older } = destination;
  const strange = { ...destination, id: "wxyz1234", verified: "perhaps" };
  const records = [older, strange, { ...destination, id: "efgh1234" }].map((entry) => ({
    endedAt: "2025-01-03T00:00:00.000Z",
    entry,
  }));
  new Journal(join(own.state, endedName), "ended", 1, (value) => value).write(records);
  assert.equal(readEnded(own).map(({ entry }) => entry.id), ["abcd1234", "efgh1234"]);
  assert.equal(readEnded(own, "abcd1234")[0]!.entry, older);
  // It stays when another one ends.
  noteEnded(own, { ...destination, id: "ijkl1234" });
  assert.equal(readEnded(own).map(({ entry }) => entry.id), ["abcd1234", "efgh1234", "ijkl1234"]);
});

test.run();
