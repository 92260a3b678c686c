/** The destination's file system is full while the sync runs: it stops and says why, and goes on when told to. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { command } from "../../src/nbd-server/protocol.ts";
import { makeDisk, MiB } from "../helpers/disk.ts";
import type { Dlsm } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { killParts, pidsOf } from "../helpers/processes.ts";
import { NbdClient } from "./nbd-client.ts";
import { refuseAll } from "./refusal.ts";
import { fillUp, withSmallFolder } from "./small-folder.ts";

const test = suite("disk full");
const asRoot = needing(test, ["tgtd", "mount"], { root: true });

/** NBD_ENOSPC, NBD proto.md "Error values". */
const noSpace = 28;
const KiB = 1024;
/** 24 MiB, of which the last 8 are a hole; the file system has room for 8. */
const dataMiB = Array.from({ length: 16 }, (_, at) => at);

asRoot(
  "resident data stays usable, absent data readable, nothing is corrupted, resume ends well",
  () =>
    withSmallFolder("8m", async (dlsm, small) => {
      makeDisk(dlsm.path("src"), 24, dataMiB);
      const source = readFileSync(dlsm.path("src"));
      const model = Buffer.from(source);
      writeFileSync(`${small.path}/spare`, Buffer.alloc(64 * KiB));
      await refusesAtFirst(dlsm);
      const id = await stops(dlsm, ["migrate", "src", "small/dst", "--force"]);

      const client = await NbdClient.connect(dlsm.socketOf(id));
      const refuses = async (offset: number, payload: Uint8Array) => {
        const { error } = await client.request({ type: command.write, offset, payload });
        assert.is(error, noSpace, `a write of ${payload.length} bytes at ${offset}`);
      };
      const isModel = async (what: string) => {
        for (let at = 0; at < model.length; at += MiB) {
          const data = await client.read(at, MiB);
          assert.is(Buffer.compare(data, model.subarray(at, at + MiB)), 0, `${what}, MiB ${at / MiB}`);
        }
      };
      // Room for half of it: what was written of it must not show up as the source's hole.
      rmSync(`${small.path}/spare`);
      await refuses(20 * MiB, Buffer.alloc(128 * KiB, "half"));
      await isModel("after a write that failed half-way");
      fillUp(`${small.path}/spare`);
      await refuses(12 * MiB, Buffer.alloc(64 * KiB, "new"));
      await refuses(13 * MiB + 512, Buffer.alloc(512, "new"));
      const overwrite = Buffer.alloc(64 * KiB, "over");
      await client.write(4 * MiB + 512, overwrite);
      overwrite.copy(model, 4 * MiB + 512);
      await client.trim(14 * MiB, MiB);
      model.fill(0, 14 * MiB, 15 * MiB);
      await client.flush();
      await isModel("after writes while it is full");
      client.close();

      await killParts(dlsm, ["engine"]);
      await stops(dlsm, ["resume", id]);
      await dlsm.ok("resume", id, "--detach");
      await dlsm.until(
        id,
        () => pidsOf(dlsm, "driver").length === 0,
        "the driver in the background gives up",
      );
      assert.match((await dlsm.status(id))!.lastError!, "no space left");

      await small.resize("64m");
      await dlsm.ok("resume", id);
      assert.is(Buffer.compare(readFileSync(`${small.path}/dst`), model), 0);
      assert.is(Buffer.compare(readFileSync(dlsm.path("src")), source), 0);
      await dlsm.nothingLeft();
    }),
);

asRoot(
  "the state folder and the run folder are full as well",
  () =>
    withSmallFolder("8m", async (dlsm, small) => {
      dlsm.environment.DLSM_STATE_DIR = `${small.path}/state`;
      dlsm.environment.DLSM_RUN_DIR = `${small.path}/run`;
      makeDisk(dlsm.path("src"), 24, dataMiB);
      const source = readFileSync(dlsm.path("src"));
      const id = await stops(dlsm, ["migrate", "src", "small/dst", "--force"]);
      const client = await NbdClient.connect(dlsm.socketOf(id));
      assert.is(Buffer.compare(await client.read(0, MiB), source.subarray(0, MiB)), 0);
      assert.is(Buffer.compare(await client.read(12 * MiB, MiB), source.subarray(12 * MiB, 13 * MiB)), 0);
      const limited = await dlsm.run("limit", id, "1GiB/s");
      assert.is(limited.exitCode, 1);
      assert.match(limited.stderr, /journal \S+ cannot be written: .*no space left.*\n {2}make space/i);
      client.close();
      await small.resize("64m");
      await dlsm.ok("resume", id);
      assert.is(Buffer.compare(readFileSync(`${small.path}/dst`), source), 0);
      await dlsm.nothingLeft();
    }),
);

/** Runs a command that follows the sync, which must stop for want of space; checks all that is said about it. */
async function stops(dlsm: Dlsm, args: readonly string[]): Promise<string> {
  const destination = dlsm.path("small/dst");
  const { exitCode, stdout, stderr } = await dlsm.run(...args, "--json");
  assert.is(exitCode, 1, stderr);
  const { error } = JSON.parse(stdout.trim().split("\n").at(-1)!);
  assert.is(error.kind, "failed", stderr);
  const [, id] = /dlsm resume (\w+)/.exec(error.hint)!;
  const start = `the sync of ${id} to ${hostname()}:${destination} stopped: `;
  assert.ok(error.message.startsWith(start), error.message);
  const why = error.message.slice(start.length);
  // The disk, or where the maps are full as well one of them.
  const isNamed = [destination, dlsm.environment.DLSM_STATE_DIR!, dlsm.environment.DLSM_RUN_DIR!].some((
    path,
  ) => why.startsWith(`no space left on the file system of ${path}`) && path.startsWith(dlsm.path("small")));
  assert.ok(isNamed, why);
  assert.match(error.hint, "make space");
  if (args[0] === "migrate") assert.match(stderr, "warning: ", "it is foretold");

  const status = (await dlsm.status(id!))!;
  assert.is(status.phase, "active");
  assert.match(status.lastError!, "no space left on the file system of ");
  assert.is(status.disks[0]!.lastError, status.lastError);
  const resident = status.disks[0]!.residentBytes;
  // Where the live map shares the full file system, what was stored last may find no room for its mark.
  const least = dlsm.environment.DLSM_RUN_DIR!.startsWith(dlsm.path("small")) ? 0 : 4 * MiB;
  assert.ok(resident >= least && resident < 20 * MiB, `${resident} bytes are resident`);
  const text = await dlsm.ok("status", id!);
  assert.match(text.stdout, /last error: no space left on .*\n {2}when its cause is mended, dlsm resume \w+/);
  return id!;
}

/** What cannot fit is not begun, unless forced. */
async function refusesAtFirst(dlsm: Dlsm): Promise<void> {
  const refusal = {
    args: ["migrate", "src", "small/dst"],
    kind: "precondition",
    says: [
      `${hostname()}:${dlsm.path("src")} takes up 16 MiB`,
      `${hostname()}:${dlsm.path("small/dst")} has`,
    ],
    hint: ["make space", "--force"],
  } as const;
  await refuseAll(dlsm, [refusal]);
}

test.run();
