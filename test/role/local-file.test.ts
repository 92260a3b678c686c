import {
  linkSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { PreconditionError } from "../../src/lib/errors.ts";
import {
  identityAt,
  inspectDestination,
  makeLocalFile,
  refuseSameDisk,
  unmakeLocalFile,
} from "../../src/role/local-file.ts";
import { rejection } from "../helpers/rejection.ts";
import { tempFolder } from "../helpers/temp.ts";

const MiB = 1024 * 1024;
const test = suite("local file");

test("inspectDestination() tells a file to be made, an empty one and one with content apart", async () => {
  const folder = tempFolder();
  const [made, empty, full] = ["made", "empty", "full"].map((name) => join(folder, name));
  writeFileSync(empty, "");
  writeFileSync(full, Buffer.alloc(MiB, 1));
  assert.is((await inspectDestination(made, MiB, false)).origin, "made");
  assert.is((await inspectDestination(made, MiB, false)).identity, null);
  assert.is((await inspectDestination(empty, MiB, false)).origin, "empty");
  assert.is((await inspectDestination(full, MiB, true)).origin, "existing");
  const refused = await rejection(inspectDestination(full, MiB, false), PreconditionError);
  assert.match(refused.message, `${hostname()}:${full} exists and is not empty`);
  const small = await rejection(inspectDestination(full, MiB + 512, true), PreconditionError);
  assert.match(small.message, "too small");
  assert.equal(readFileSync(full), Buffer.alloc(MiB, 1));
});

test("makeLocalFile() makes a private sparse file; unmakeLocalFile() takes it away, and no other", async () => {
  const path = join(tempFolder(), "disk");
  const identity = makeLocalFile(await inspectDestination(path, 64 * MiB, false), 64 * MiB);
  const stats = statSync(path);
  assert.is(stats.size, 64 * MiB);
  assert.is(stats.mode & 0o777, 0o600);
  assert.ok(stats.blocks * 512 < MiB, "sparse");
  assert.is(identityAt(path), identity);
  // Another file has its name by now.
  linkSync(path, `${path}.kept`);
  unlinkSync(path);
  writeFileSync(path, "somebody else's");
  unmakeLocalFile(path, identity, "made");
  assert.is(readFileSync(path, "utf8"), "somebody else's");
  unmakeLocalFile(`${path}.kept`, identity, "made");
  assert.is(identityAt(`${path}.kept`), null);
  unmakeLocalFile(`${path}.kept`, identity, "made");
});

test("an empty file becomes empty again, one with content is left as it is", async () => {
  const folder = tempFolder();
  const empty = join(folder, "empty");
  writeFileSync(empty, "");
  const identity = makeLocalFile(await inspectDestination(empty, MiB, false), MiB);
  assert.is(statSync(empty).size, MiB);
  unmakeLocalFile(empty, identity, "empty");
  assert.is(statSync(empty).size, 0);
  const full = join(folder, "full");
  writeFileSync(full, Buffer.alloc(MiB, 1));
  const file = await inspectDestination(full, MiB, true);
  unmakeLocalFile(full, makeLocalFile(file, MiB), "existing");
  assert.equal(readFileSync(full), Buffer.alloc(MiB, 1));
});

test("makeLocalFile() leaves nothing where the file system does not take the size, or another made it first", async () => {
  const path = join(tempFolder(), "disk");
  const file = await inspectDestination(path, MiB, false);
  const tooLarge = 2 ** 53 - 512;
  assert.throws(
    () => makeLocalFile(file, tooLarge),
    (error: Error) => error instanceof PreconditionError && error.message.includes("cannot be given"),
  );
  assert.is(identityAt(path), null);
  writeFileSync(path, "somebody else's");
  assert.throws(
    () => makeLocalFile(file, MiB),
    (error: Error) => error instanceof PreconditionError && error.message.includes("cannot be made: EEXIST"),
  );
  assert.is(readFileSync(path, "utf8"), "somebody else's");
});

test("refuseSameDisk() knows one file by any of its names", () => {
  const folder = tempFolder();
  const path = join(folder, "disk");
  writeFileSync(path, "");
  truncateSync(path, MiB);
  linkSync(path, join(folder, "hard"));
  symlinkSync("disk", join(folder, "soft"));
  writeFileSync(join(folder, "other"), "");
  const source = { identity: identityAt(path)!, standsOn: [identityAt(path)!] };
  for (const name of ["disk", "hard", "soft", "../" + folder.split("/").at(-1) + "/disk"]) {
    assert.throws(() => refuseSameDisk(`${folder}/${name}`, source), /are the same disk/, name);
  }
  refuseSameDisk(join(folder, "other"), source);
  refuseSameDisk(join(folder, "nothing"), source);
});

test("inspectDestination() takes no new file in /dev for a device", async () => {
  const { message } = await rejection(
    inspectDestination("/dev/dlsm-no-such-device", MiB, true),
    PreconditionError,
  );
  assert.is(message, `there is no device ${hostname()}:/dev/dlsm-no-such-device`);
});

test.run();
