/** A migration under load to which something is done, and the checks at its end. */
import { readFileSync } from "node:fs";
import * as assert from "uvu/assert";
import { Random } from "../engine/memory.ts";
import { type Detached, Dlsm } from "../helpers/dlsm.ts";
import { within } from "../helpers/processes.ts";
import { History, makeSectorDisk } from "../helpers/sectors.ts";
import { CrashLoad } from "./crash-load.ts";

/** Of everything that these tests choose at random; from outside, to see a failure again. */
export const seed = Number(process.env.DLSM_SEED ?? 1 + Math.floor(Math.random() * 1e6));

export interface Scene extends Detached {
  readonly dlsm: Dlsm;
  readonly random: Random;
  readonly load: CrashLoad;
}

export interface Loaded {
  readonly sizeMiB: number;
  readonly dataMiB: readonly number[];
  readonly clients: number;
  /** Of the migration: by default slow, so that it does not end meanwhile. */
  readonly args?: readonly string[];
  readonly environment?: Record<string, string>;
}

/**
 * `body` runs while clients write and read. Afterwards the migration is let finish, and the disk is compared with
 * what the clients know, the source with what it was; nothing may be left.
 */
export async function underLoad(what: Loaded, body: (scene: Scene) => Promise<void>): Promise<void> {
  const { sizeMiB, dataMiB, clients, args = ["--bwlimit", "512KiB/s"], environment } = what;
  const dlsm = new Dlsm(environment);
  try {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeSectorDisk(source, sizeMiB, dataMiB);
    const before = readFileSync(source);
    const detached = await dlsm.migrateDetached(source, destination, args);
    const { id, socket } = detached;
    const history = new History(sizeMiB, dataMiB);
    const load = new CrashLoad({ socket, history, seed, clients });
    try {
      await load.allConnect();
      await body({ ...detached, dlsm, random: new Random(seed), load });
      await load.stop();
    } finally {
      load.abandon();
    }
    // After a long run all may be here: it ends as soon as nobody is connected any more.
    const { exitCode, stderr } = await dlsm.run("limit", id, "off");
    assert.ok(exitCode === 0 || await dlsm.status(id) === undefined, stderr);
    await dlsm.until(id, (status) => status === undefined, "done");
    assert.is(history.settleFile(destination), undefined, `seed ${seed}`);
    assert.ok(readFileSync(source).equals(before), "the source is as it was");
    await dlsm.nothingLeft();
  } catch (error) {
    throw new Error(`seed ${seed}: ${error}`, { cause: error });
  } finally {
    await dlsm.close();
  }
}

/** `dlsm status` ends well and in time, and one line of what it prints is so. */
export async function explains(dlsm: Dlsm, id: string, line: RegExp): Promise<void> {
  const { stdout } = await within(dlsm.ok("status", id), "dlsm status");
  if (!stdout.split("\n").some((each) => line.test(each))) {
    throw new Error(`no line of the status is ${line}:\n${stdout}`);
  }
}
