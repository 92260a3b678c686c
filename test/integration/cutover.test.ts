/** The end of a migration, and who goes on when the command in the foreground is interrupted. */
import { readFileSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { Dlsm, kill } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { pidsOf, until } from "../helpers/processes.ts";
import { NbdClient } from "./nbd-client.ts";

const test = suite("cutover");
const withTgt = needing(test, ["tgtd"]);
/** So that it is not at its end before a client has connected. */
const slowly = ["--bwlimit", "64KiB/s"];

async function withDisk(
  body: (dlsm: Dlsm, source: string, destination: string) => Promise<void>,
): Promise<void> {
  const dlsm = new Dlsm();
  try {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeDisk(source, 16, [0, 1, 2, 7]);
    await body(dlsm, source, destination);
    await dlsm.nothingLeft();
  } finally {
    await dlsm.close();
  }
}

withTgt(
  "it waits for the last client; cutover says how many there are, --force disconnects them",
  async () => {
    await withDisk(async (dlsm, source, destination) => {
      const { id, socket } = await dlsm.migrateDetached(source, destination, slowly);
      const clients = [await NbdClient.connect(socket), await NbdClient.connect(socket)];
      await dlsm.ok("limit", id, "off");
      await dlsm.until(id, (status) => status?.phase === "released", "all is here");
      await clients[0].write(5 * MiB, Buffer.alloc(4096, 7));
      const refused = await dlsm.run("cutover", id);
      assert.is(refused.exitCode, 3, refused.stderr);
      assert.match(refused.stderr, /2 NBD connection/);
      assert.is((await dlsm.status(id))?.phase, "released");
      assert.is((await clients[1].read(5 * MiB, 1))[0], 7, "they go on");
      await dlsm.ok("cutover", id, "--force");
      await dlsm.nothingLeft();
      // Not flushed by anybody, and there.
      const expected = readFileSync(source).fill(7, 5 * MiB, 5 * MiB + 4096);
      assert.ok(readFileSync(destination).equals(expected));
      for (const client of clients) client.close();
    });
  },
);

withTgt("it comes by itself when the last client has gone", async () => {
  await withDisk(async (dlsm, source, destination) => {
    const { id, socket } = await dlsm.migrateDetached(source, destination, slowly);
    const client = await NbdClient.connect(socket);
    await dlsm.ok("limit", id, "off");
    await dlsm.until(id, (status) => status?.phase === "released", "all is here");
    client.close();
    await dlsm.until(id, (status) => status === undefined, "done");
    assert.ok(readFileSync(destination).equals(readFileSync(source)));
  });
});

withTgt(
  "--hold-cutover keeps the engine until cutover, which is refused while blocks are absent",
  async () => {
    await withDisk(async (dlsm, source, destination) => {
      const args = ["--hold-cutover", ...slowly];
      const { id, socket } = await dlsm.migrateDetached(source, destination, args);
      const early = await dlsm.run("cutover", id, "--force");
      assert.is(early.exitCode, 3, early.stderr);
      assert.match(early.stderr, /active/);
      await dlsm.ok("limit", id, "off");
      await dlsm.until(id, (status) => status?.phase === "released", "all is here");
      assert.is(pidsOf(dlsm, "tgtd").length, 0, "the source is let go");
      const client = await NbdClient.connect(socket);
      assert.ok((await client.read(MiB, MiB)).equals(readFileSync(source).subarray(MiB, 2 * MiB)));
      client.close();
      await dlsm.ok("cutover", id);
      await dlsm.nothingLeft();
      assert.ok(readFileSync(destination).equals(readFileSync(source)));
    });
  },
);

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  withTgt(`${signal} while it is followed: exit code 4, and it goes on in the background`, async () => {
    await withDisk(async (dlsm, source, destination) => {
      const migrate = dlsm.start("migrate", source, destination, ...slowly);
      let said = "";
      migrate.stderr!.on("data", (text) => said += text);
      await until(() => said.includes("can be used at"), "it is followed");
      kill(migrate.pid!, signal);
      const { exitCode, stderr } = await migrate;
      assert.is(exitCode, 4, String(stderr));
      assert.match(String(stderr), /goes on in the background/);
      const [, id] = /^(?:info: )?([a-z0-9]{8}): the disk/m.exec(said)!;
      await dlsm.ok("limit", id, "off");
      await dlsm.until(id, (status) => status === undefined, "done");
      assert.ok(readFileSync(destination).equals(readFileSync(source)));
    });
  });
}

withTgt("SIGINT while it is being set up: exit code 4, and resume goes on", async () => {
  await withDisk(async (dlsm, source, destination) => {
    const migrate = dlsm.start("migrate", source, destination, "--handoff", "manual");
    await until(() => pidsOf(dlsm, "tgtd").length > 0, "it is being set up");
    kill(migrate.pid!, "SIGINT");
    const { exitCode, stderr } = await migrate;
    assert.is(exitCode, 4, String(stderr));
    const [, id] = /dlsm resume ([a-z0-9]{8})/.exec(String(stderr)) ??
      /([a-z0-9]{8}) goes on in the background/.exec(String(stderr))!;
    await dlsm.ok("resume", id, "--detach");
    assert.is((await dlsm.status(id))?.phase, "attached");
    await dlsm.ok("activate", id);
    await dlsm.until(id, (status) => status === undefined, "done");
    assert.ok(readFileSync(destination).equals(readFileSync(source)));
  });
});

test.run();
