/** Taking exports away by hand: all of a migration, and none that its destination still needs. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { exitCodes, PreconditionError } from "../../src/lib/errors.ts";
import { SourceRole } from "../../src/role/source.ts";
import { makeDisk } from "../helpers/disk.ts";
import { needing } from "../helpers/needs.ts";
import { tempFolder } from "../helpers/temp.ts";

const test = suite("release");
const withTgt = needing(test, ["tgtd"]);
const ids = ["reltest-1", "reltest-2"] as const;
const elsewhere = { host: "node2", path: "/disks/d", reach: "root@node2", hostId: "2".repeat(32) };

/** Two disks, one migration (and a disk of another one, which nobody may touch); nobody is logged in. */
async function withExports(
  destination: typeof elsewhere | null,
  use: (role: SourceRole, left: () => Promise<string[]>) => Promise<void>,
): Promise<void> {
  const folder = tempFolder("release");
  const folders = { state: join(folder, "state"), run: join(folder, "run") };
  for (const each of Object.values(folders)) mkdirSync(each, { mode: 0o700 });
  const role = new SourceRole(folders);
  const network = { portal: { address: "127.0.0.1", port: 0 }, allow: "127.0.0.1", tunnel: null };
  try {
    for (const id of [...ids, "reltester"]) {
      const path = join(folder, id);
      makeDisk(path, 1, [0]);
      await role.export({ id, path, ...network, destination });
    }
    await use(role, async () => (await role.list({})).map(({ id }) => id));
  } finally {
    for (const { id } of await role.list({})) await role.release({ id, force: true });
  }
}

async function refusalOf(promise: Promise<unknown>): Promise<PreconditionError> {
  const error = await promise.then(() => undefined, (error) => error);
  assert.instance(error, PreconditionError);
  return error;
}

withTgt(
  "a migration's id stands for all of its disks, and for no other migration's",
  () =>
    withExports(null, async (role, left) => {
      assert.equal(await role.release({ id: "reltest", force: false }), { wasThere: true, note: null });
      assert.equal(await left(), ["reltester"]);
      assert.equal(await role.release({ id: "reltest", force: false }), { wasThere: false, note: null });
    }),
);

withTgt(
  "after the hand-off it is refused although nobody is logged in, and then for all disks",
  () =>
    withExports(elsewhere, async (role, left) => {
      await role.fence({ id: ids[1], force: false });
      const error = await refusalOf(role.release({ id: "reltest", force: false }));
      assert.is(error.exitCode, exitCodes.precondition);
      assert.match(error.message, /reltest-2 is being migrated to node2:\/disks\/d \(reltest\)/);
      assert.match(error.hint!, /dlsm resume reltest goes on .* dlsm abort reltest .* --force/);
      assert.equal(await left(), [...ids, "reltester"]);
      const [, entry] = await role.list({ id: "reltest" });
      assert.not.equal(entry!.fence, null, "the fence stands");
      assert.is((await role.release({ id: "reltest", force: true })).wasThere, true);
      assert.equal(await left(), ["reltester"]);
    }),
);

withTgt("what was exported by hand, and a disk that was not handed over, can be released", async () => {
  await withExports(null, async (role, left) => {
    await role.fence({ id: ids[0], force: false });
    await role.release({ id: "reltest", force: false });
    assert.equal(await left(), ["reltester"]);
  });
  await withExports(elsewhere, async (role, left) => {
    await role.release({ id: ids[0], force: false });
    assert.equal(await left(), [ids[1], "reltester"]);
  });
});

test.run();
