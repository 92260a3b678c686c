/** Ids that mean nothing, and state that was damaged: each refused with its own message, and nothing lost. */
import { chmodSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { makeDisk, MiB } from "../helpers/disk.ts";
import type { Dlsm } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { killParts, pidsOf } from "../helpers/processes.ts";
import { type Refusal, refuseAll, withDlsm } from "./refusal.ts";
import { NbdClient } from "./nbd-client.ts";

const test = suite("bad state");
const withTgt = needing(test, ["tgtd"]);
const asRoot = needing(test, ["unshare", "mount"], { root: true });

/** Every command that takes an id. */
const withId = (id: string) => [
  ["status", id],
  ["status", id, "--watch"],
  ["activate", id],
  ["pause", id],
  ["resume", id],
  ["resume", id, "--detach"],
  ["limit", id, "10MiB/s"],
  ["cutover", id],
  ["abort", id],
  ["abort", id, "--force"],
  ["verify", id],
  ["release", id],
];

test("an id that nobody knows", () =>
  withDlsm((dlsm) =>
    refuseAll(
      dlsm,
      withId("zzzz9999").map((args): Refusal => ({
        args,
        kind: "precondition",
        says: [/^there is no (migration|export) zzzz9999/],
        hint: ["dlsm status lists them"],
      })),
    )
  ));

test("an id that cannot be one", () =>
  withDlsm((dlsm) =>
    refuseAll(
      dlsm,
      ["../../etc", "abc", "ABCD1234", "abcd 1234", "", "a".repeat(17), "abcd1234\n"].flatMap((id) =>
        withId(id).map((args): Refusal => ({
          args,
          kind: "usage",
          says: [`${JSON.stringify(id)} is not the id of a migration`],
          hint: ["dlsm status lists"],
        }))
      ),
    )
  ));

withTgt(
  "a damaged journal of the destination: told, the others are too, and nothing is lost",
  () =>
    withDlsm(async (dlsm) => {
      const { id, other, dst } = await twoMigrations(dlsm);
      const restore = damage(dlsm, "destination", id, "journal");
      const journal = join(dlsm.environment.DLSM_STATE_DIR!, "destination", id, "journal");
      const says = [`the journal ${journal} cannot be used`, "the file is damaged"];
      const [broken, whole] = await statuses(dlsm, [id, other]);
      assert.match(broken!.lastError!, says[0]!);
      // What the source's journal and the engine know is still told.
      assert.equal(broken!.source, { host: hostname(), path: dlsm.path("src") });
      assert.is(broken!.destination.path, dst);
      assert.is(broken!.phase, "active");
      assert.is(broken!.disks[0]!.sizeBytes, 4 * MiB);
      assert.is(whole!.phase, "attached");
      assert.is(whole!.lastError, null);
      const text = await dlsm.ok("status");
      assert.match(text.stdout, "last error: the journal");
      assert.ok(text.stdout.includes(dlsm.path("src2")));

      const { length } = withId(id);
      const refused = withId(id).filter(([name]) => !["status", "abort", "release"].includes(name!));
      assert.is(refused.length, length - 5);
      await refuseAll(dlsm, [
        ...refused.map((args): Refusal => ({ args, kind: "precondition", says, hint: ["restore the file"] })),
        {
          args: ["abort", id],
          kind: "precondition",
          says: [`the hand-off of ${id} has happened`],
          hint: ["dlsm abort --force"],
        },
      ]);
      restore();
      await dlsm.ok("limit", id, "off");
      await dlsm.ok("resume", id);
      assert.is(Buffer.compare(readFileSync(dlsm.path("src")), readFileSync(dst)), 0);

      damage(dlsm, "destination", other, "journal");
      const aborted = await dlsm.ok("abort", other);
      assert.match(aborted.stderr, `${dlsm.path("dst2")} was left as it was`);
      assert.match(aborted.stdout, `${dlsm.path("src2")} is as it was`);
      await dlsm.nothingLeft();
    }),
);

withTgt(
  "a damaged journal of the source: told; abort takes the export away all the same",
  () =>
    withDlsm(async (dlsm) => {
      const { id, other } = await twoMigrations(dlsm);
      const restore = damage(dlsm, "source", id, "journal");
      const journal = join(dlsm.environment.DLSM_STATE_DIR!, "source", id, "journal");
      const [broken, whole] = await statuses(dlsm, [id, other]);
      assert.match(broken!.lastError!, `the journal ${journal} cannot be used`);
      assert.is(broken!.phase, "active");
      assert.is(whole!.lastError, null);
      await refuseAll(dlsm, [{
        args: ["resume", id],
        kind: "precondition",
        says: [`the journal ${journal} cannot be used`],
        hint: ["restore the file", "dlsm abort"],
      }]);
      restore();
      await dlsm.ok("limit", id, "off");
      await dlsm.ok("resume", id);

      damage(dlsm, "source", other, "journal");
      const { stdout, stderr } = await dlsm.ok("abort", other);
      assert.match(stdout, `${other} aborted: `);
      assert.match(stdout, "may not be writable as it was");
      assert.match(stderr, "its journal cannot be read (if it was, it takes chattr -i and chmod u+w");
      await dlsm.nothingLeft();
    }),
);

withTgt(
  "a damaged or missing residency map: resume refuses, nothing is overwritten, abort takes --force",
  () =>
    withDlsm(async (dlsm) => {
      makeDisk(dlsm.path("src"), 4, [0, 1, 2, 3]);
      const { id } = await dlsm.migrateDetached("src", "dst", ["--bwlimit", "64KiB/s"]);
      await dlsm.until(id, (status) => (status?.disks[0].residentBytes ?? 0) > 0, "some of it is there");
      await killParts(dlsm, ["driver", "engine"]);
      const folder = join(dlsm.environment.DLSM_STATE_DIR!, "destination", id);
      const live = join(dlsm.environment.DLSM_RUN_DIR!, id, "dst", "live.map");
      const map = join(folder, "residency.map");
      const tooLate: Refusal = {
        args: ["abort", id],
        kind: "precondition",
        says: [`the hand-off of ${id} has happened`],
        hint: ["dlsm abort --force"],
      };
      const refuses = async (says: string) => {
        await refuseAll(dlsm, [
          {
            args: ["resume", id],
            kind: "precondition",
            says: [map, says],
            hint: [`dlsm abort ${id} --force`],
          },
          tooLate,
        ]);
        assert.equal(pidsOf(dlsm, "engine"), []);
      };

      const restore = damage(dlsm, "destination", id, "residency.map");
      await refuses("cannot be used");
      restore();
      // The sockets of the engine that was killed are replaced by each one that starts.
      renameSync(map, `${map}.away`);
      await refuses("is missing");
      const status = (await dlsm.status(id))!;
      assert.is(status.phase, "active");
      assert.match(status.lastError!, "residency map cannot be read");
      // With the live map gone too, as after a reboot, nobody knows any more that the hand-off has happened.
      renameSync(live, `${live}.away`);
      await refuses("is missing");
      assert.is((await dlsm.status(id))!.phase, "active");

      renameSync(`${map}.away`, map);
      renameSync(`${live}.away`, live);
      await dlsm.ok("limit", id, "off").catch(() => {});
      const resumed = dlsm.ok("resume", id);
      await dlsm.until(id, (now) => now?.disks[0].enginePid != null, "the engine is back");
      await dlsm.ok("limit", id, "off");
      await resumed;
      assert.is(Buffer.compare(readFileSync(dlsm.path("src")), readFileSync(dlsm.path("dst"))), 0);
      await dlsm.nothingLeft();
    }),
);

withTgt("an engine's configuration that is damaged or missing", () =>
  withDlsm(async (dlsm) => {
    makeDisk(dlsm.path("src"), 1, [0]);
    const { id } = await dlsm.migrateDetached("src", "dst", ["--handoff", "manual"]);
    await dlsm.until(id, () => pidsOf(dlsm, "driver").length > 0, "it is driven");
    await killParts(dlsm, ["driver", "engine"]);
    const config = join(dlsm.environment.DLSM_STATE_DIR!, "destination", id, "engine.config");
    damage(dlsm, "destination", id, "engine.config");
    const refusal = (says: string): Refusal => ({
      args: ["resume", id],
      kind: "precondition",
      says: [config, says],
      hint: ["backup", "dlsm abort"],
    });
    await refuseAll(dlsm, [refusal("cannot be used")]);
    rmSync(config);
    await refuseAll(dlsm, [refusal("is missing")]);
    await dlsm.ok("abort", id);
    await dlsm.nothingLeft();
  }));

test("a run folder whose path is too long for sockets, and folders that others may write", () =>
  withDlsm(async (dlsm) => {
    makeDisk(dlsm.path("src"), 1, [0]);
    const long = dlsm.path("x".repeat(90));
    const open = dlsm.path("open");
    for (const path of [long, open]) mkdirSync(path, { mode: 0o700 });
    chmodSync(open, 0o777);
    const commands = [["migrate", "src", "dst"], ["export", "src", "--allow", "127.0.0.1"]];
    await refuseAll(
      dlsm,
      commands.flatMap((args): Refusal[] => [
        {
          args,
          kind: "precondition",
          says: [`the run folder ${long}`, "too long"],
          hint: ["DLSM_RUN_DIR", "shorter"],
          environment: { DLSM_RUN_DIR: long },
        },
        {
          args,
          kind: "precondition",
          says: [`the state folder ${open}`, "open to other users"],
          hint: ["chmod 700", "DLSM_STATE_DIR"],
          environment: { DLSM_STATE_DIR: open },
        },
      ]),
    );
  }));

asRoot("a state folder on a file system that is read-only or full", () =>
  withDlsm(async (dlsm) => {
    makeDisk(dlsm.path("src"), 1, [0]);
    const state = dlsm.path("there");
    mkdirSync(state, { mode: 0o700 });
    const mounted = (options: string, then = "") => [
      ...["unshare", "-m", "sh", "-c"],
      `mount -t tmpfs -o ${options},mode=700 none "$DLSM_STATE_DIR" && ${then} exec "$@"`,
      "sh",
    ];
    const fill = 'cd "$DLSM_STATE_DIR" && { dd if=/dev/zero of=fill bs=4k 2>/dev/null; cd - >/dev/null; } &&';
    const commands = [["migrate", "src", "dst"], ["export", "src", "--allow", "127.0.0.1"]];
    await refuseAll(
      dlsm,
      commands.flatMap((args): Refusal[] => [
        {
          args,
          kind: "precondition",
          says: [state, "read-only"],
          hint: ["DLSM_STATE_DIR"],
          prefix: mounted("ro"),
          environment: { DLSM_STATE_DIR: state },
        },
        {
          args,
          kind: "precondition",
          says: [state, /no space left/i],
          hint: ["nothing was changed: make space"],
          prefix: mounted("size=64k", fill),
          environment: { DLSM_STATE_DIR: state },
        },
      ]),
    );
  }));

/** One that is handed over and paused, and one that waits for its hand-off; nobody drives them. */
async function twoMigrations(dlsm: Dlsm): Promise<{ id: string; other: string; dst: string }> {
  makeDisk(dlsm.path("src"), 4, [0, 1, 2, 3]);
  makeDisk(dlsm.path("src2"), 1, [0]);
  const { id } = await dlsm.migrateDetached("src", "dst", ["--bwlimit", "64KiB/s"]);
  const { id: other } = await dlsm.migrateDetached("src2", "dst2", ["--handoff", "manual"]);
  await dlsm.until(id, () => pidsOf(dlsm, "driver").length === 2, "both are driven");
  await killParts(dlsm, ["driver"]);
  await dlsm.ok("pause", id);
  // What was under way is on disk: nothing changes by itself any more.
  const client = await NbdClient.connect(dlsm.socketOf(id));
  await client.flush();
  client.close();
  return { id, other, dst: dlsm.path("dst") };
}

/** Overwrites a part of a state file; what it returns puts the file back. */
function damage(dlsm: Dlsm, role: string, id: string, name: string): () => void {
  const path = join(dlsm.environment.DLSM_STATE_DIR!, role, id, name);
  const whole = readFileSync(path);
  const damaged = Buffer.from(whole);
  for (let at = 16; at < damaged.length; at += 7) damaged[at]! ^= 0x55;
  writeFileSync(path, damaged);
  return () => writeFileSync(path, whole);
}

/** `status --json` of all, in the order of the ids. */
async function statuses(dlsm: Dlsm, ids: readonly string[]) {
  const { stdout } = await dlsm.ok("status", "--json");
  const all = stdout.trim().split("\n").map((line) => JSON.parse(line));
  assert.is(all.length, ids.length);
  return ids.map((id) => all.find((status) => status.id === id));
}

test.run();
