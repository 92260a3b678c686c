/**
 * Migrations of a disk with PostgreSQL and SQLite in it, killed again and again; fails if a commit is lost or
 * anything is half there. Run by database.test.ts, in a mount namespace of its own.
 *
 * In a round both databases commit, then the volume is gone under them, and with it, for them, the machine; it is
 * brought back, the file system replays its journal, and they theirs. In the end all is cut over under load, and
 * looked for on the local disk.
 */
import { chmodSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { execa } from "execa";
import { Random } from "../engine/memory.ts";
import { makeDisk } from "../helpers/disk.ts";
import { Dlsm } from "../helpers/dlsm.ts";
import { killParts, type Part, pidsOf, until } from "../helpers/processes.ts";
import { tempFolder } from "../helpers/temp.ts";
import { Databases } from "./databases.ts";
import { forgetRunFolder } from "./machine-restart.ts";
import { MountedDisk } from "./mounted-disk.ts";

const seed = Number(process.env.DLSM_SEED ?? 1 + Math.floor(Math.random() * 1e6));
const rounds = Number(process.env.DLSM_ROUNDS ?? 3);
const sizeMiB = 192;
/** The sync does not end before the rounds do. */
const bandwidth = "512KiB/s";

/** Done so far. */
const kills: Record<Part, number> = { engine: 0, tgtd: 0, driver: 0 };

interface Way {
  readonly parts: readonly Part[];
  /** What is to be done so that the volume is there again. */
  back(dlsm: Dlsm, id: string): Promise<unknown> | void;
}

const resume = (dlsm: Dlsm, id: string) => dlsm.ok("resume", id, "--detach");

const ways: readonly Way[] = [
  // The driver starts it again.
  { parts: ["engine"], back() {} },
  { parts: ["driver", "tgtd", "engine"], back: resume },
  {
    parts: ["driver", "engine", "tgtd"],
    back(dlsm, id) {
      forgetRunFolder(dlsm, id);
      return resume(dlsm, id);
    },
  },
];

/** An image with both databases, cleanly unmounted. */
async function makeSource(random: Random): Promise<string> {
  const folder = tempFolder("db");
  chmodSync(folder, 0o711);
  const image = join(folder, "source");
  makeDisk(image, sizeMiB, []);
  // Blocks smaller than those that are tracked: many writes are of parts of them.
  await execa("mkfs.ext4", ["-q", "-F", "-b", "1024", image]);
  const disk = await MountedDisk.ofImage(image, folder);
  const databases = new Databases(disk.path, join(folder, "run"), random);
  try {
    await databases.create();
  } finally {
    await databases.halt();
    await disk.detach();
  }
  return image;
}

/** One migration of a copy of the source, and the databases that live in it. */
class Migration {
  readonly #dlsm: Dlsm;
  readonly #random: Random;
  readonly #databases: Databases;
  readonly #pristine: string;
  #id = "";
  #disk: MountedDisk | undefined;

  private constructor(pristine: string, random: Random) {
    this.#dlsm = new Dlsm();
    chmodSync(this.#dlsm.folder, 0o711);
    this.#random = random;
    this.#pristine = pristine;
    const mounted = join(this.#dlsm.folder, "mounted");
    this.#databases = new Databases(mounted, this.#dlsm.path("postgres"), random);
  }

  /** Handed over; both databases commit. */
  static async begin(pristine: string, random: Random): Promise<Migration> {
    const migration = new Migration(pristine, random);
    try {
      await migration.#handOver();
      await migration.#recover();
      return migration;
    } catch (error) {
      await migration.close();
      throw error;
    }
  }

  get transactions(): number {
    return this.#databases.committed;
  }

  /** Under load the volume goes away, and comes back; what was committed is there, and the load goes on. */
  async round(way: Way): Promise<void> {
    const moment = () => this.#databases.more(1 + this.#random.below(100));
    // That alone is no crash, the load goes on: the driver starts it again.
    if (this.#random.chance(0.3)) await this.#kill(["tgtd"], moment);
    await this.#kill(way.parts, moment);
    await this.#crash();
    await way.back(this.#dlsm, this.#id);
    if (this.#random.chance(0.3)) await this.#crashWhileRecovering();
    await this.#recover();
  }

  /** All comes; then the databases' machine crashes, and they go on from the local disk. */
  async cutOver(): Promise<void> {
    const dlsm = this.#dlsm;
    await dlsm.ok("limit", this.#id, "off");
    await dlsm.until(this.#id, (status) => status?.phase === "released", "all is here");
    await this.#databases.more(20);
    this.#disk!.pullOut();
    await this.#crash();
    await dlsm.until(this.#id, (status) => status === undefined, "done");
    await dlsm.nothingLeft();
    this.#disk = await MountedDisk.ofImage(dlsm.path("destination"), dlsm.folder);
    await this.#databases.recover();
    await this.#databases.checkAll();
    await this.#crash();
    await execa("cmp", [this.#pristine, dlsm.path("source")]);
  }

  /** Where it stands, for whoever looks why it failed. */
  async tell(): Promise<void> {
    const { stdout, stderr } = await this.#dlsm.run("status");
    console.log(stdout, stderr, this.#dlsm.processes());
    const records = this.#dlsm.path(`state/destination/${this.#id}`);
    for (const name of ["driver.log", "engine.log"]) {
      const log = join(records, name);
      if (existsSync(log)) console.log(`${name}:\n${readFileSync(log, "utf8").slice(-4000)}`);
    }
  }

  async close(): Promise<void> {
    this.#disk?.pullOut();
    await this.#crash();
    await this.#dlsm.close();
  }

  async #handOver(): Promise<void> {
    const [source, destination] = [this.#dlsm.path("source"), this.#dlsm.path("destination")];
    await execa("cp", ["--sparse=always", this.#pristine, source]);
    const blockSize = this.#random.chance(0.5) ? "4KiB" : "64KiB";
    const options = ["--handoff", "manual", "--bwlimit", bandwidth, "--block-size", blockSize];
    const { id } = await this.#dlsm.migrateDetached(source, destination, options);
    this.#id = id;
    await this.#dlsm.ok("activate", id);
  }

  async #recover(): Promise<void> {
    await this.#mount();
    await this.#databases.recover();
    this.#databases.load();
  }

  /** The engine is killed while the file system and the databases replay their journals, or a little later. */
  async #crashWhileRecovering(): Promise<void> {
    const recovering = (async () => {
      await this.#mount();
      await this.#databases.launch();
    })();
    recovering.catch(() => {}); // Whatever it meets: the next attempt must succeed.
    const delayMs = this.#random.below(1000);
    await this.#kill(["engine"], () => sleep(delayMs));
    await Promise.allSettled([recovering]);
    await this.#crash();
    await resume(this.#dlsm, this.#id);
  }

  async #kill(parts: readonly Part[], moment: () => Promise<void>): Promise<void> {
    // The driver may be about to start one of them again.
    for (const part of parts) await until(() => pidsOf(this.#dlsm, part).length > 0, part, 60_000);
    await killParts(this.#dlsm, parts, moment);
    for (const part of parts) kills[part]++;
  }

  async #mount(): Promise<void> {
    this.#disk = await MountedDisk.ofVolume(this.#dlsm.socketOf(this.#id), this.#dlsm.folder);
  }

  async #crash(): Promise<void> {
    await this.#databases.halt();
    await this.#disk?.detach();
    this.#disk = undefined;
  }
}

function shuffled<T>(items: readonly T[], random: Random): T[] {
  return items.map((item) => ({ item, at: random.next() })).sort((a, b) => a.at - b.at).map(({ item }) =>
    item
  );
}

try {
  const random = new Random(seed);
  const source = await makeSource(random);
  let [done, transactions] = [0, 0];
  while (done < rounds) {
    const migration = await Migration.begin(source, random);
    try {
      for (const way of shuffled(ways, random)) await migration.round(way);
      await migration.cutOver();
    } catch (error) {
      await migration.tell();
      throw error;
    } finally {
      await migration.close();
    }
    done += ways.length;
    transactions += migration.transactions;
    console.log(`${done} rounds, ${transactions} transactions, killed: ${JSON.stringify(kills)}`);
  }
} catch (error) {
  throw new Error(`seed ${seed}`, { cause: error });
}
