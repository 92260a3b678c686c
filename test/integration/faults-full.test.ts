/**
 * The destination fills up under a client that writes: it is told ENOSPC, keeps all that was acknowledged, also
 * when the engine is killed then, and goes on when there is room. (Invariants 6, 11 and 14.)
 */
import { readFileSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { command } from "../../src/nbd-server/protocol.ts";
import { Random } from "../engine/memory.ts";
import { MiB } from "../helpers/disk.ts";
import { needing } from "../helpers/needs.ts";
import { killParts } from "../helpers/processes.ts";
import { fillSectors, History, makeSectorDisk, sectorBytes } from "../helpers/sectors.ts";
import { NbdClient } from "./nbd-client.ts";
import { withSmallFolder } from "./small-folder.ts";
import { explains, seed } from "./under-load.ts";

const test = suite("faults: full under writes");
const asRoot = needing(test, ["tgtd", "mount"], { root: true });

/** NBD_ENOSPC, NBD proto.md "Error values". */
const noSpace = 28;
const sizeMiB = 32;
const dataMiB = Array.from({ length: 24 }, (_, at) => at);
const smallMiB = 12;

/** Writes random pieces, several at a time, until so many were refused for want of space. */
async function writeUntilRefused(
  client: NbdClient,
  history: History,
  random: Random,
  refusals: number,
): Promise<number> {
  let refused = 0;
  let acknowledged = 0;
  let value = 1 + random.below(1 << 20);
  const busy = new Set<number>();
  const maxWrites = 4 * sizeMiB * MiB / 65536;
  const lane = async () => {
    while (refused < refusals && acknowledged < maxWrites) {
      // Places of 64 KiB, of which sometimes a part is written that begins and ends within a block.
      const place = random.below(sizeMiB * MiB / 65536);
      if (busy.has(place)) continue;
      busy.add(place);
      const [skip, count] = random.chance(0.5) ? [0, 128] : [1 + random.below(40), 1 + random.below(80)];
      const first = place * 128 + skip;
      const written = 2 + value++;
      history.begin(first, count, written);
      const payload = fillSectors(new Uint8Array(count * sectorBytes), first, written);
      const { error } = await client.request({ type: command.write, offset: first * sectorBytes, payload });
      if (error === 0) {
        history.acknowledge(first, count, written);
        acknowledged++;
      } else {
        assert.is(error, noSpace, `error ${error} instead of ENOSPC`);
        refused++;
      }
      busy.delete(place);
    }
  };
  await Promise.all(Array.from({ length: 6 }, lane));
  assert.ok(refused >= refusals, "it never became full");
  return acknowledged;
}

async function checkAll(client: NbdClient, history: History): Promise<void> {
  for (let at = 0; at < sizeMiB; at++) {
    assert.is(history.settle(at * MiB / sectorBytes, await client.read(at * MiB, MiB)), undefined);
  }
}

asRoot(
  "ENOSPC reaches the client, what was acknowledged stays, resume goes on",
  () =>
    withSmallFolder(`${smallMiB}m`, async (dlsm, small) => {
      const random = new Random(seed);
      const [source, destination] = [dlsm.path("src"), dlsm.path("small/dst")];
      makeSectorDisk(source, sizeMiB, dataMiB);
      const before = readFileSync(source);
      const history = new History(sizeMiB, dataMiB);
      const args = ["--bwlimit", "64KiB/s", "--force", "--hold-cutover"];
      const { id, socket } = await dlsm.migrateDetached(source, destination, args);
      let client = await NbdClient.connect(socket);
      const acknowledged = await writeUntilRefused(client, history, random, 20);
      assert.ok(acknowledged > 20, `${acknowledged} writes found room`);
      await explains(dlsm, id, /^ {2}last error: .*no space left on the file system of .*dst/);
      await checkAll(client, history);
      client.close();

      await killParts(dlsm, ["engine"]);
      await dlsm.run("resume", id, "--detach");
      await dlsm.until(id, (status) => status?.disks[0].enginePid != null, "the engine is back");
      client = await NbdClient.connect(socket);
      await checkAll(client, history);
      await writeUntilRefused(client, history, random, 5);
      await checkAll(client, history);

      await small.resize("64m");
      await dlsm.ok("resume", id, "--detach");
      const piece = fillSectors(new Uint8Array(MiB), 0, 3);
      await client.write(0, piece);
      history.begin(0, MiB / sectorBytes, 3);
      history.acknowledge(0, MiB / sectorBytes, 3);
      await client.flush();
      await dlsm.ok("limit", id, "off");
      await dlsm.until(id, (status) => status?.phase === "released", "all is here");
      assert.is((await dlsm.status(id))!.lastError, null, "it is over");
      await checkAll(client, history);
      client.close();
      await dlsm.ok("cutover", id);
      await dlsm.until(id, (status) => status === undefined, "done");
      assert.is(history.settleFile(destination), undefined, `seed ${seed}`);
      assert.ok(readFileSync(source).equals(before), "the source is as it was");
      await dlsm.nothingLeft();
    }),
);

test.run();
