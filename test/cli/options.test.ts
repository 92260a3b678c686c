import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  idOf,
  localPath,
  parseDiskPlace,
  parsePortal,
  readVolumeOptions,
  repeated,
} from "../../src/cli/options.ts";
import { UsageError } from "../../src/lib/errors.ts";
import { tempFolder } from "../helpers/temp.ts";

function refuses(work: () => unknown, message: RegExp): void {
  assert.throws(work, (error: Error) => {
    const isMeant = error instanceof UsageError && message.test(error.message) && error.hint !== undefined;
    return isMeant || assert.unreachable(`${error.stack}`);
  });
}

const given = { activate: "explicit", "block-size": "4KiB" } as const;
const test = suite("cli: options");

test("localPath() takes paths of this machine, with a colon too if they are there or cannot be meant otherwise", () => {
  const there = join(tempFolder(), "a:b");
  writeFileSync(there, "");
  for (const path of ["disk", "./host:/disk", "/dev/disk/by-path/pci-0000:00:1f.2", there, "a/b:c"]) {
    assert.is(localPath(path), path);
  }
  for (const path of ["host:/disk", "user@host:/disk", "192.0.2.7:/disk", "[::1]:/disk"]) {
    refuses(() => localPath(path), /is on another host/);
  }
  refuses(() => localPath(""), /path is empty/);
});

test("parsePortal() takes an address with a port or without, but none that is link-local", () => {
  const portals = [
    ["192.0.2.7", "192.0.2.7", 0],
    ["192.0.2.7:3260", "192.0.2.7", 3260],
    ["[2001:db8::fe80:1]:3260", "2001:db8::fe80:1", 3260],
    ["[fec0::1]", "fec0::1", 0],
  ] as const;
  for (const [text, address, port] of portals) assert.equal(parsePortal(text), { address, port });
  for (const text of ["[fe80::1%eth0]", "[fe80::1%eth0]:3260", "[FE80::1]", "[febf::1]:1"]) {
    refuses(() => parsePortal(text), /link-local/);
  }
});

test("parseDiskPlace() takes hosts as ssh knows them, and absolute paths there", () => {
  const places = [
    ["node1:/disk", "node1", "/disk"],
    ["root@node1:/dev/vg0/a:b", "root@node1", "/dev/vg0/a:b"],
    ["192.0.2.7:/a b", "192.0.2.7", "/a b"],
    ["[fe80::1%eth0]:/disk", "fe80::1%eth0", "/disk"],
    ["root@[2001:db8::7]:/disk", "root@2001:db8::7", "/disk"],
    ["./node1:/disk", null, "./node1:/disk"],
  ] as const;
  for (const [text, reach, path] of places) assert.equal(parseDiskPlace(text), { reach, path });
  refuses(() => parseDiskPlace("node1:disk"), /has to begin with \//);
  refuses(() => parseDiskPlace("root@node1:"), /has to begin with \//);
  for (const host of ["-oProxyCommand=x", "a b", "a;b", "$(a)", "a@"]) {
    refuses(() => parseDiskPlace(`${host}:/disk`), /cannot be a host for ssh/);
  }
});

test("repeated() gives every value of a flag, in order", () => {
  assert.equal(repeated(["--disk", "a=b", "--json", "--disk=c=d", "--diskette", "x"], "--disk"), [
    "a=b",
    "c=d",
  ]);
  assert.equal(repeated([], "--disk"), []);
});

test("readVolumeOptions() reads units, and names the flag that it does not understand", () => {
  const plain = readVolumeOptions(given);
  assert.equal(
    [plain.blockBytes, plain.bytesPerSecond, plain.sourceTimeoutMs, plain.holdCutover, plain.force],
    [4096, null, null, false, false],
  );
  const read = readVolumeOptions({
    ...given,
    "block-size": "1MiB",
    bwlimit: "2MiB/s",
    "source-timeout": "5m",
  });
  assert.equal([read.blockBytes, read.bytesPerSecond, read.sourceTimeoutMs], [1 << 20, 2 << 20, 300_000]);
  assert.is(readVolumeOptions({ ...given, bwlimit: "off" }).bytesPerSecond, null);
  for (const size of ["2KiB", "2MiB", "5000", "12KiB"]) {
    refuses(() => readVolumeOptions({ ...given, "block-size": size }), /^--block-size: /);
  }
  refuses(() => readVolumeOptions({ ...given, "block-size": "small" }), /^--block-size: /);
  refuses(() => readVolumeOptions({ ...given, bwlimit: "fast" }), /^--bwlimit: /);
  refuses(() => readVolumeOptions({ ...given, "source-timeout": "soon" }), /^--source-timeout: /);
});

test("idOf() takes what an id can be and nothing that could lead out of a folder", () => {
  assert.is(idOf({ id: "abcd1234" }), "abcd1234");
  for (const id of ["", ".", "..", "../abcd", "abcd/efgh", "ABCD1234", "abcd1234\n", "a b c d", "abc"]) {
    refuses(() => idOf({ id }), /is not the id of a migration/);
  }
});

test.run();
