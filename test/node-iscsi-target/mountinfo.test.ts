import { suite } from "uvu";
import * as assert from "uvu/assert";
import { parseMountinfo, readOnlyOptions } from "../../src/node-iscsi-target/mountinfo.ts";

const test = suite("mountinfo");

const recorded = `62 43 0:22 / /sys rw,relatime - sysfs sysfs rw
63 43 254:0 /tmp/x/we\\040ird,\\012"'$(x)ü.img /tmp/x\\134y\\040z/disks/1 rw,nosuid,nodev,relatime shared:5 - ext4 /dev/vda rw
`;

test("parseMountinfo: mount points and options of each mount", () => {
  assert.equal(parseMountinfo(recorded), [
    { mountPoint: "/sys", options: ["rw", "relatime"] },
    { mountPoint: "/tmp/x\\y z/disks/1", options: ["rw", "nosuid", "nodev", "relatime"] },
  ]);
  assert.equal(parseMountinfo("nonsense\n\n"), []);
});

test("readOnlyOptions: only the writing is taken away", () => {
  const [, mount] = parseMountinfo(recorded);
  assert.is(readOnlyOptions(mount!), "remount,bind,ro,nosuid,nodev,relatime");
});

test.run();
