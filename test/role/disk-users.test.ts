import { closeSync, linkSync, openSync, statSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { diskIdentity } from "../../src/role/disk-identity.ts";
import { describeUsers, diskUsers, standsOn } from "../../src/role/disk-users.ts";
import { makeDisk } from "../helpers/disk.ts";
import { attachLoop, needingLoop } from "../helpers/loop-device.ts";
import { tempFolder } from "../helpers/temp.ts";
import { startWriter } from "../helpers/writer.ts";

const test = suite("disk users");
const withLoop = await needingLoop(test, test as unknown as typeof test.skip);

function newDisk(): string {
  const path = join(tempFolder(), "disk");
  makeDisk(path, 1, [0]);
  return path;
}

test("diskUsers() names who has the file open for writing, under any of its names, and nobody else", async () => {
  const path = newDisk();
  linkSync(path, `${path}.hard`);
  const reader = openSync(path, "r");
  assert.equal(diskUsers(path), [], "a reader is no user");
  const writer = await startWriter(`${path}.hard`);
  try {
    const expected = [{ kind: "process" as const, pid: writer.pid, name: writer.command }];
    assert.equal(diskUsers(path), expected);
    assert.equal(diskUsers(path, [writer.pid]), [], "one that is left out");
    assert.is(describeUsers(expected), `process ${writer.pid} (${writer.command})`);
  } finally {
    await writer.stop();
    closeSync(reader);
  }
  assert.equal(diskUsers(path), []);
});

test("describeUsers() says in words what uses a disk", () => {
  assert.is(
    describeUsers([
      { kind: "process", pid: 7, name: "qemu" },
      { kind: "mount", pid: null, name: "/srv" },
      { kind: "swap", pid: null, name: "/dev/sdb" },
      { kind: "holder", pid: null, name: "/dev/dm-1" },
    ]),
    "process 7 (qemu), a file system mounted on /srv, swap (/dev/sdb), the device /dev/dm-1 on top of it",
  );
});

test("standsOn() of a file is the file", () => {
  const path = newDisk();
  assert.equal(standsOn(path), [diskIdentity(statSync(path, { bigint: true }))]);
});

withLoop("a loop device stands on its file, and is a user of it", async () => {
  const path = newDisk();
  const loop = await attachLoop(path);
  try {
    const [file, device] = [path, loop.path].map((each) => diskIdentity(statSync(each, { bigint: true })));
    assert.equal(standsOn(loop.path).sort(), [file, device].sort());
    assert.equal(diskUsers(path), [{ kind: "holder", pid: null, name: loop.path }]);
    assert.equal(diskUsers(loop.path), []);
  } finally {
    await loop.detach();
  }
});

test.run();
