/** While the source cannot be reached, what is here goes on, and what is not here waits (or fails, if asked to). */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { command } from "../../src/nbd-server/protocol.ts";
import { MiB } from "../helpers/disk.ts";
import { type Detached, Dlsm } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { killParts, within } from "../helpers/processes.ts";
import { fillSectors, History, makeSectorDisk, sectorBytes } from "../helpers/sectors.ts";
import { checkRead, write } from "./guest.ts";
import { NbdClient } from "./nbd-client.ts";

const test = suite("source gone");
const withTgt = needing(test, ["tgtd"]);

const sizeMiB = 48;
const dataMiB = Array.from({ length: sizeMiB }, (_, at) => at);
const eio = 5;

/** A migration whose background sync has not come far, and a client. */
async function withVolume(
  args: readonly string[],
  body: (dlsm: Dlsm, migration: Detached, client: NbdClient, history: History) => Promise<void>,
): Promise<void> {
  const dlsm = new Dlsm();
  try {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeSectorDisk(source, sizeMiB, dataMiB);
    const history = new History(sizeMiB, dataMiB);
    const migration = await dlsm.migrateDetached(source, destination, ["--bwlimit", "64KiB/s", ...args]);
    const client = await NbdClient.connect(migration.socket);
    try {
      await body(dlsm, migration, client, history);
    } finally {
      client.close();
    }
    await dlsm.ok("limit", migration.id, "off");
    await dlsm.until(migration.id, (status) => status === undefined, "done");
    assert.is(history.settleFile(destination), undefined);
    await dlsm.nothingLeft();
  } finally {
    await dlsm.close();
  }
}

withTgt("reads of absent blocks wait until tgtd is back; all else goes on; the wait shows", async () => {
  await withVolume([], async (dlsm, { id }, client, history) => {
    await write(client, history, 30, 7);
    await checkRead(client, history, 31);
    await killParts(dlsm, ["driver", "tgtd"]);

    let waiting = 0;
    const wait = async (work: Promise<void>) => {
      waiting++;
      await work;
      waiting--;
    };
    const waits = Promise.all([
      wait(checkRead(client, history, 40)),
      // A part of an absent block: the rest of it has to be fetched.
      wait(client.write(42 * MiB, fillSectors(new Uint8Array(sectorBytes), 42 * MiB / sectorBytes, 8))),
    ]);
    waits.catch(() => {});
    history.begin(42 * MiB / sectorBytes, 1, 8);
    const status = await dlsm.until(id, (found) => found?.waitingForSource === true, "it shows");
    assert.match(status!.lastError!, /tgtd/);
    assert.is(status!.phase, "active");

    await checkRead(client, history, 30);
    await checkRead(client, history, 31);
    await write(client, history, 30, 9);
    await write(client, history, 44, 10);
    await client.trim(45 * MiB, MiB);
    history.acknowledge(45 * MiB / sectorBytes, MiB / sectorBytes, 0);
    await client.flush();
    await checkRead(client, history, 44);
    await checkRead(client, history, 45);
    assert.is(waiting, 2, "what needs the source waits");

    await dlsm.ok("resume", id, "--detach");
    await within(waits, "what needs the source");
    await checkRead(client, history, 42);
    await dlsm.until(id, (found) => found?.waitingForSource === false, "it is over");
    // The driver has its last word on it until it looks again.
    await dlsm.until(id, (found) => found?.lastError === null, "all is well");

    // With a driver nobody has to do anything.
    await killParts(dlsm, ["tgtd"]);
    await checkRead(client, history, 46);
    history.acknowledge(42 * MiB / sectorBytes, 1, 8);
  });
});

withTgt("with --source-timeout a read of absent blocks fails with EIO, and only that", async () => {
  await withVolume(["--source-timeout", "1s"], async (dlsm, { id }, client, history) => {
    await write(client, history, 30, 7);
    await killParts(dlsm, ["driver", "tgtd"]);
    const read = (atMiB: number) =>
      client.request({ type: command.read, offset: atMiB * MiB, length: 64 * 1024 });
    assert.is((await read(40)).error, eio);
    // A fetch that somebody gave up goes on; who joins it has a time of its own.
    assert.is((await read(40)).error, eio);
    await checkRead(client, history, 30);
    await write(client, history, 44, 10);
    await dlsm.ok("resume", id, "--detach");
    await dlsm.until(id, (found) => found?.waitingForSource === false, "the source is back");
    await checkRead(client, history, 40);
    await checkRead(client, history, 41);
  });
});

test.run();
