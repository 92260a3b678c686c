/** Who drives a migration: one at a time. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
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

test("who was killed is told of, who left is not, and why somebody ended is kept", async () => {
  const { folders, role } = await planned();
  const driver = new DriverRole(folders);
  const path = join(folders.run, id, "dst", "driver");
  const found = async () => {
    const [{ driverPid, driverNote }] = await role.list({ id });
    return { driverPid, driverNote };
  };
  await driver.take({ id });
  assert.equal(await found(), { driverPid: process.pid, driverNote: null });
  // As the file of a process that is not there any more.
  const killed = readFileSync(path, "utf8").replace(/"startTime":"\d+"/, '"startTime":"1"');
  driver.leave({ id, goOn: false });
  assert.equal(await found(), { driverPid: null, driverNote: null });
  writeFileSync(path, killed);
  const { driverPid, driverNote } = await found();
  assert.is(driverPid, null);
  assert.match(driverNote!, `was killed: dlsm resume ${id}`);
  await driver.take({ id });
  assert.is((await found()).driverNote, null);
  driver.note({ id, note: "the source is away" });
  driver.leave({ id, goOn: false });
  assert.is((await found()).driverNote, "the source is away");
});

test("nobody has it when the migration is gone, and nothing is made for it", async () => {
  const { folders, role } = await planned();
  await role.abort({ id, force: false });
  assert.is(await new DriverRole(folders).take({ id }), false);
  assert.not.ok(existsSync(join(folders.run, id)));
});

test.run();
