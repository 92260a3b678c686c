/** What the destination role refuses, whatever the other side says. */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { SourceExport } from "../../src/engine/mod.ts";
import { PreconditionError } from "../../src/lib/errors.ts";
import { DestinationRecords } from "../../src/role/destination-records.ts";
import { DestinationRole } from "../../src/role/destination.ts";
import { knownDisk } from "../../src/role/disk-identity.ts";
import { removeRoleFolders } from "../../src/role/layout.ts";
import { tempFolder } from "../helpers/temp.ts";
import { planOf } from "./plan.ts";

const test = suite("destination role");

function newRole() {
  const folder = tempFolder();
  const folders = { state: join(folder, "state"), run: join(folder, "run") };
  for (const each of Object.values(folders)) mkdirSync(each, { mode: 0o700 });
  return { folder, folders, role: new DestinationRole(folders), records: new DestinationRecords(folders) };
}

const credentials = { user: "u", secret: "0123456789abcdef" };
const exported: SourceExport = {
  address: "127.0.0.1",
  port: 9,
  targetName: "iqn.2026-01.local.dlsm:x",
  serial: "dlsm-x",
  chap: { incoming: credentials, outgoing: credentials },
  sizeBytes: 1 << 20,
  blockBytes: 512,
  holesReadZero: false,
  tunnel: null,
};

test("it only goes where its plan says, whatever export the source names", async () => {
  const { folder, role } = newRole();
  const path = join(folder, "disk");
  const tunnel = "root@node1.invalid";
  const portal = { address: "127.0.0.1", port: 9 };
  await role.plan(planOf(path, { network: { portal, allow: "127.0.0.1", tunnel } }));
  const asPlanned = { ...exported, tunnel };
  for (
    const other of [
      { ...asPlanned, address: "127.0.0.2" },
      { ...asPlanned, port: 10 },
      { ...asPlanned, tunnel: "root@victim.invalid" },
      { ...asPlanned, tunnel: null },
      { ...asPlanned, sizeBytes: 2 << 20 },
    ]
  ) {
    const error = await role.attach({ id: "abcd1234", export: other }).then(
      () => undefined,
      (cause) => cause,
    );
    assert.instance(error, PreconditionError);
    assert.match(error.message, /not where it was planned|has 2097152 bytes now/);
    assert.not.ok(existsSync(path), "nothing was done");
  }
});

test("the first disk, where the driver's place is, ends last", async () => {
  const { folder, role, records } = newRole();
  const ids = ["abcd1234-1", "abcd1234-2"];
  for (const id of ids) {
    const path = join(folder, id);
    await role.plan(planOf(path, { id, diskCount: 2 }));
    writeFileSync(path, Buffer.alloc(1 << 20));
    records.write({ ...records.read(id), ...knownDisk(path), state: "finishing" });
  }
  assert.is((await role.finish({ id: ids[0] })).isDone, false);
  assert.is((await role.finish({ id: ids[1] })).isDone, true);
  assert.is((await role.finish({ id: ids[0] })).isDone, true);
  assert.equal(records.ids(), []);
});

test("a migration that ends while it is looked at is not listed with the figures of one that has nothing", async () => {
  const { folder, folders, role } = newRole();
  await role.plan(planOf(join(folder, "disk"), {}));
  assert.equal((await role.list({})).map(({ id }) => id), ["abcd1234"]);
  const listed = role.list({});
  removeRoleFolders(folders, "destination", "abcd1234");
  assert.equal(await listed, []);
});

test.run();
