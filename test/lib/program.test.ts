import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { findProgram } from "../../src/lib/program.ts";
import { tempFolder } from "../helpers/temp.ts";

const test = suite("program");
const path = process.env.PATH;
test.after.each(() => {
  process.env.PATH = path;
});

test("findProgram takes the first one in PATH that can be run", () => {
  const [first, second] = [tempFolder(), tempFolder()];
  for (const folder of [first, second]) writeFileSync(join(folder, "tool"), "#!/bin/sh\n");
  chmodSync(join(second, "tool"), 0o755);
  process.env.PATH = `${first}::${second}`;
  assert.is(findProgram("tool"), join(second, "tool"));
  chmodSync(join(first, "tool"), 0o755);
  assert.is(findProgram("tool"), join(first, "tool"));
});

test("findProgram knows the folders of root, which are not in PATH", () => {
  process.env.PATH = "/nowhere";
  assert.match(findProgram("ldconfig") ?? "", /\/sbin\/ldconfig$/);
});

test("findProgram: undefined for what is not there, also with the current folder in PATH", () => {
  const folder = tempFolder();
  mkdirSync(join(folder, "sub"));
  process.env.PATH = `${folder}:`;
  assert.is(findProgram("package.json"), undefined);
  assert.is(findProgram("no-such-program"), undefined);
});

test.run();
