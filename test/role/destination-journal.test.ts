/** Records of a destination that an older version of dlsm wrote. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Journal } from "../../src/lib/journal.ts";
import { destinationJournal, plannedRecord } from "../../src/role/destination-journal.ts";
import { tempFolder } from "../helpers/temp.ts";
import { planOf } from "./plan.ts";

const test = suite("destination journal");

const record = plannedRecord(
  planOf("/dst"),
  { path: "/dst", identity: null, freeBytes: 0, origin: "made" },
  "/run/x",
);

/** What is read of a record that was written without these fields. */
function readWithout(...missing: string[]) {
  const folder = join(tempFolder(), record.plan.id);
  mkdirSync(folder);
  const kept = Object.entries({ ...record, verified: "same", verifiedBytes: 4096 })
    .filter(([name]) => !missing.includes(name));
  const journal = destinationJournal(folder);
  new Journal(journal.path, "destination", 1, (value) => value).write(Object.fromEntries(kept));
  return journal.read();
}

test("a record that does not say how much was verified is read", () => {
  assert.equal(readWithout(), { ...record, verified: "same", verifiedBytes: 4096 });
  assert.equal(readWithout("verifiedBytes"), { ...record, verified: "same", verifiedBytes: 0 });
});

test("a record of the first version is read", () => {
  const later = ["goesBackAs", "seededBytes", "isSettled", "isHandoffDecided", "totalBytesPerSecond"];
  assert.equal(readWithout(...later, "verifiedBytes"), { ...record, verified: "same", verifiedBytes: 0 });
});

test.run();
