/** Killing any of the processes at any moment under load: nothing that was acknowledged is lost. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Random } from "../engine/memory.ts";
import { MiB } from "../helpers/disk.ts";
import { Dlsm } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { killParts, type Part, pidsOf, until } from "../helpers/processes.ts";
import { History, makeSectorDisk } from "../helpers/sectors.ts";
import { CrashLoad } from "./crash-load.ts";
import { seed, underLoad } from "./under-load.ts";

const test = suite("kill");
const withTgt = needing(test, ["tgtd"]);

const sizeMiB = 160;
const dataMiB = Array.from({ length: 120 }, (_, at) => at).filter((at) => at % 5 !== 3);
const disk = { sizeMiB, dataMiB };
/** How often the engine is killed: more in a long run. */
const kills = Number(process.env.DLSM_ROUNDS ?? 8);

withTgt(
  "only the engine: it is started again, and every acknowledged write is there, unflushed",
  async () => {
    await underLoad({ ...disk, clients: 4 }, async ({ dlsm, id, random, load }) => {
      for (let round = 0; round < kills; round++) {
        const back = load.allConnect();
        // A driver that had to start it very often gives up.
        const isWithDriver = round % 16 === 15;
        const parts: Part[] = isWithDriver ? ["driver", "engine"] : ["engine"];
        await killParts(dlsm, parts, () => load.more(1 + random.below(400)));
        if (isWithDriver) await dlsm.ok("resume", id, "--detach");
        await back;
      }
    });
  },
);

const rounds: { parts: Part[]; resume: "detached" | "foreground" }[] = [
  { parts: ["driver", "engine"], resume: "detached" },
  { parts: ["driver", "tgtd"], resume: "foreground" },
  { parts: ["driver"], resume: "detached" },
  { parts: ["driver", "tgtd", "engine"], resume: "foreground" },
  { parts: ["driver", "engine"], resume: "foreground" },
  { parts: ["driver", "engine", "tgtd"], resume: "detached" },
];

withTgt("driver, engine and tgtd, alone and together: resume goes on", async () => {
  await underLoad({ ...disk, clients: 2 }, async ({ dlsm, id, random, load }) => {
    for (const { parts, resume } of shuffled(rounds, random)) {
      const back = parts.includes("engine") ? load.allConnect() : undefined;
      const moment = random.chance(0.5)
        ? () => load.more(1 + random.below(500))
        : () => moreResident(dlsm, id, (1 + random.below(16)) * 64 * 1024);
      await killParts(dlsm, parts, moment);
      if (resume === "detached") await dlsm.ok("resume", id, "--detach");
      else void dlsm.start("resume", id);
      await back;
      await load.more(1);
      await dlsm.until(id, (status) => status?.waitingForSource === false, "the source is back");
    }
  });
});

withTgt("the command in the foreground: resume finishes what it began", async () => {
  const dlsm = new Dlsm();
  try {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeSectorDisk(source, sizeMiB, dataMiB);
    void dlsm.start("migrate", source, destination, "--bwlimit", "2MiB/s");
    const id = await onlyId(dlsm);
    const history = new History(sizeMiB, dataMiB);
    const load = new CrashLoad({ socket: dlsm.socketOf(id), history, seed });
    try {
      await killParts(dlsm, ["driver"], () => load.more(500));
      await load.more(100);
      assert.is((await dlsm.status(id))?.phase, "active", "the volume goes on meanwhile");
      await load.stop();
    } finally {
      load.abandon();
    }
    await dlsm.ok("limit", id, "off");
    const { stdout } = await dlsm.ok("resume", id, "--json");
    assert.is(JSON.parse(stdout.trim().split("\n").at(-1)!).phase, "done");
    assert.is(history.settleFile(destination), undefined, `seed ${seed}`);
    await dlsm.nothingLeft();
  } finally {
    await dlsm.close();
  }
});

function shuffled<T>(items: readonly T[], random: Random): T[] {
  return items.map((item) => ({ item, at: random.next() })).sort((a, b) => a.at - b.at).map(({ item }) =>
    item
  );
}

async function moreResident(dlsm: Dlsm, id: string, bytes: number): Promise<void> {
  const residentBytes = (await dlsm.status(id))!.disks[0].residentBytes;
  const goal = Math.min(residentBytes + bytes, (sizeMiB - 32) * MiB);
  await dlsm.until(id, (status) => status!.disks[0].residentBytes >= goal, `${goal} bytes resident`);
}

/** The id of the one migration, once it serves. */
async function onlyId(dlsm: Dlsm): Promise<string> {
  await until(() => pidsOf(dlsm, "engine").length === 1, "an engine");
  const { stdout } = await dlsm.ok("status", "--json");
  return JSON.parse(stdout).id;
}

test.run();
