import { readFileSync, writeFileSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { FailedError, refusalOf } from "../../src/lib/errors.ts";
import { tempFolder } from "../helpers/temp.ts";

const test = suite("errors");

function thrownBy(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}

test("refusalOf() says what the system refused, where, and what to do; other errors are bugs", () => {
  const full = refusalOf(thrownBy(() => writeFileSync("/dev/full", "x")));
  assert.instance(full, FailedError);
  assert.match(full!.message, /^a file system is full: ENOSPC: /);
  assert.is(full!.hint, "make space there, and give the command again");
  const failed = refusalOf(thrownBy(() => readFileSync("/proc/self/mem")));
  assert.match(failed!.message, /^reading or writing failed: EIO: /);
  const code = (name: string) => refusalOf(Object.assign(new Error("x"), { code: name }))?.message;
  assert.is(code("EROFS"), "a file system is read-only: x");
  for (const name of ["EMFILE", "ENFILE", "EDQUOT", "EACCES", "EPERM", "ENOMEM"]) assert.ok(code(name), name);
  for (const name of ["ENOENT", "ERR_INVALID_ARG_TYPE", "constructor"]) {
    assert.is(code(name), undefined, name);
  }
  assert.is(refusalOf(thrownBy(() => readFileSync(`${tempFolder()}/absent`))), undefined);
  assert.is(refusalOf(new Error("x")), undefined);
  assert.is(refusalOf("x"), undefined);
});

test.run();
