/** Who drives a migration: one at a time. */
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { DestinationRole } from "../../src/role/destination.ts";
import { DriverRole } from "../../src/role/driver.ts";
import { tempFolder } from "../helpers/temp.ts";
import { planOf } from "./plan.ts";

const test = suite("driver's place");
const id = "abcd1234";

async function planned() {
  const folder = tempFolder();
  const folders = { state: join(folder, "state"), run: join(folder, "run") };
  for (const each of Object.values(folders)) mkdirSync(each, { mode: 0o700 });
  const role = new DestinationRole(folders);
  await role.plan(planOf(join(folder, "disk")));
  return { folders, role };
}

test("one conversation has it, until it leaves it", async () => {
  const { folders } = await planned();
  const [one, other] = [new DriverRole(folders), new DriverRole(folders)];
  assert.is(await one.take({ id }), true);
  assert.is(await one.take({ id }), true, "again");
  assert.is(await other.take({ id }), false);
  one.leave({ id, goOn: false });
  assert.is(await other.take({ id }), true);
  other.leave({ id, goOn: false });
});

test("it can be had after a reboot, which takes the run folder away, by one", async () => {
  const { folders } = await planned();
  rmSync(join(folders.run, id), { recursive: true });
  const drivers = [new DriverRole(folders), new DriverRole(folders)];
  const taken = await Promise.all(drivers.map((driver) => driver.take({ id })));
  assert.equal(taken.toSorted(), [false, true]);
  for (const driver of drivers) driver.leave({ id, goOn: false });
});

test("nobody has it when the migration is gone, and nothing is made for it", async () => {
  const { folders, role } = await planned();
  await role.abort({ id, force: false });
  assert.is(await new DriverRole(folders).take({ id }), false);
  assert.not.ok(existsSync(join(folders.run, id)));
});

test.run();
