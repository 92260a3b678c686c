/** Giving a migration up at any moment, doing things twice, and who is refused meanwhile. */
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { command } from "../../src/nbd-server/protocol.ts";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { type Detached, Dlsm, type Ran } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { killParts } from "../helpers/processes.ts";
import { NbdClient } from "./nbd-client.ts";

const test = suite("abort");
const withTgt = needing(test, ["tgtd"]);

interface Scene {
  readonly dlsm: Dlsm;
  readonly source: string;
  readonly destination: string;
  /** The source's content. */
  readonly before: Buffer;
  migrate(...args: string[]): Promise<Detached>;
}

async function scene(body: (scene: Scene) => Promise<void>): Promise<void> {
  const dlsm = new Dlsm();
  try {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeDisk(source, 16, [0, 1, 2, 7]);
    const before = readFileSync(source);
    const migrate = (...args: string[]) =>
      dlsm.migrateDetached(source, destination, ["--bwlimit", "64KiB/s", ...args]);
    await body({ dlsm, source, destination, before, migrate });
    assert.ok(readFileSync(source).equals(before), "the source is as it was");
    await dlsm.nothingLeft();
  } finally {
    await dlsm.close();
  }
}

function refused({ exitCode, stderr, stdout }: Ran, expected: number, message: RegExp): void {
  assert.is(exitCode, expected, `${stdout}${stderr}`);
  assert.match(stderr, message);
  assert.match(stderr, /^ {2}\S/m, "there is a hint");
}

withTgt(
  "before the hand-off all of it goes, whatever was read, and a file that was made goes too",
  async () => {
    await scene(async ({ dlsm, destination, before, migrate }) => {
      const { id, socket } = await migrate("--handoff", "manual");
      const client = await NbdClient.connect(socket);
      assert.ok((await client.read(MiB, MiB)).equals(before.subarray(MiB, 2 * MiB)));
      // It waits for the hand-off, which does not come.
      const write = client.request({ type: command.write, offset: 0, payload: Buffer.alloc(4096, 1) });
      const lost = write.then(() => false, () => true);
      assert.is(statSync(destination).blocks, 0, "nothing is kept");
      const { stdout } = await dlsm.ok("abort", id, "--json");
      assert.is(JSON.parse(stdout).phase, "aborted");
      assert.ok(await lost, "a write that was not acknowledged");
      assert.not.ok(existsSync(destination));
      await dlsm.nothingLeft();
      refused(await dlsm.run("abort", id), 3, new RegExp(`no migration ${id}`));
    });
  },
);

withTgt("an empty file is empty again, one with content is untouched", async () => {
  await scene(async ({ dlsm, destination, migrate }) => {
    writeFileSync(destination, "");
    await dlsm.ok("abort", (await migrate("--handoff", "manual")).id);
    assert.is(statSync(destination).size, 0);

    const content = Buffer.alloc(16 * MiB, "somebody's ");
    writeFileSync(destination, content);
    refused(await dlsm.run("migrate", dlsm.path("src.img"), destination), 3, /not empty/);
    await dlsm.ok("abort", (await migrate("--handoff", "manual", "--force")).id);
    assert.ok(readFileSync(destination).equals(content));
  });
});

withTgt("with processes gone: all of it goes too", async () => {
  await scene(async ({ dlsm, destination, migrate }) => {
    for (const parts of [["driver", "engine"], ["driver", "tgtd", "engine"]] as const) {
      const { id } = await migrate("--handoff", "manual");
      await killParts(dlsm, parts);
      await dlsm.ok("abort", id);
      assert.not.ok(existsSync(destination));
      await dlsm.nothingLeft();
    }
  });
});

withTgt("after the hand-off it is refused, engine or not, but for --force", async () => {
  await scene(async ({ dlsm, destination, migrate }) => {
    const { id, socket } = await migrate("--handoff", "manual");
    await dlsm.ok("activate", id);
    const client = await NbdClient.connect(socket);
    await client.write(0, Buffer.alloc(4096, 1));
    client.close();
    refused(await dlsm.run("abort", id), 3, /hand-off .* has happened/);
    await killParts(dlsm, ["driver", "engine"]);
    refused(await dlsm.run("abort", id), 3, /hand-off .* has happened/);
    assert.is(readFileSync(destination)[0], 1, "nothing was changed");
    await dlsm.ok("abort", id, "--force");
    assert.not.ok(existsSync(destination));
  });
});

withTgt(
  "a second migration of either disk is refused; what is repeated is told or does nothing",
  async () => {
    await scene(async ({ dlsm, source, destination, before, migrate }) => {
      const { id } = await migrate("--handoff", "manual");
      const other = dlsm.path("other.img");
      for (const handoff of ["now", "manual"]) {
        const ran = await dlsm.run("migrate", source, other, "--handoff", handoff);
        refused(ran, 6, new RegExp(`already being migrated.*${id}`, "s"));
        assert.not.ok(existsSync(other));
      }
      makeDisk(other, 16, [3]);
      refused(await dlsm.run("migrate", other, destination), 6, new RegExp(`destination of ${id}`));

      await dlsm.ok("resume", id, "--detach");
      await dlsm.ok("resume", id, "--detach");
      assert.is((await dlsm.status(id))?.phase, "attached", "resume hands nothing over");
      await dlsm.ok("activate", id);
      await dlsm.ok("activate", id);
      await dlsm.ok("pause", id);
      await dlsm.ok("pause", id);
      assert.is((await dlsm.status(id))?.paused, true);
      await dlsm.ok("limit", id, "off");
      await dlsm.ok("resume", id, "--detach");
      await dlsm.until(id, (status) => status === undefined, "done");
      assert.ok(readFileSync(destination).equals(before));
      assert.match((await dlsm.ok("resume", id)).stdout, `${id} done`);
      assert.match((await dlsm.ok("status", id)).stdout, `${id} done`);
      for (const args of [["abort"], ["abort", "--force"], ["activate"], ["cutover"], ["release"]]) {
        refused(await dlsm.run(args[0], id, ...args.slice(1)), 3, new RegExp(`no (migration|export) ${id}`));
      }
    });
  },
);

test.run();
