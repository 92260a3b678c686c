import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { removeRoleFolders, roleFolders } from "../../src/role/layout.ts";
import { tempFolder } from "../helpers/temp.ts";

const test = suite("layout");

test("folders go although somebody notes something in them at that moment", async () => {
  const folder = tempFolder("layout");
  const all = { state: join(folder, "state"), run: join(folder, "run") };
  const { state, run } = roleFolders(all, "destination", "m");
  const noting = new Worker(
    `const { writeFileSync } = require("node:fs");
    for (let at = 0;; at++) {
      try {
        writeFileSync(${JSON.stringify(join(run, "note"))} + at % 50, "");
      } catch {
        // It is gone: the next one may be there.
      }
    }`,
    { eval: true },
  );
  try {
    for (let count = 0; count < 100; count++) {
      mkdirSync(state, { recursive: true });
      mkdirSync(run, { recursive: true });
      for (let at = 0; at < 50; at++) writeFileSync(join(run, `${at}`), "");
      removeRoleFolders(all, "destination", "m");
      assert.not.ok(existsSync(run));
      assert.not.ok(existsSync(state));
    }
  } finally {
    await noting.terminate();
  }
});

test.run();
