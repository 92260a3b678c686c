/** A disk that moves from a.img to b.img on one machine, is written there, and is to go back. */
import { readFileSync, statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { type Detached, Dlsm } from "../helpers/dlsm.ts";
import { localHost } from "../../src/role/mod.ts";
import { NbdClient } from "./nbd-client.ts";

export const sizeMiB = 16;

/** [offset, length] in bytes. */
type Extents = readonly (readonly [number, number])[];

export class WayBack {
  readonly dlsm = new Dlsm();
  readonly a: string;
  readonly b: string;
  /** What the disk must hold, wherever it is. */
  readonly expected: Buffer;
  /** Before it was fenced. */
  readonly modeOfA: number;
  id = "";

  private constructor() {
    [this.a, this.b] = [this.dlsm.path("a.img"), this.dlsm.path("b.img")];
    makeDisk(this.a, sizeMiB, Array.from({ length: sizeMiB - 2 }, (_, at) => at));
    this.expected = readFileSync(this.a);
    this.modeOfA = statSync(this.a).mode;
  }

  /** Begins the migration; nothing is left afterwards, or the test fails. */
  static async with(args: readonly string[], body: (way: WayBack) => Promise<void>): Promise<void> {
    const way = new WayBack();
    try {
      way.id = (await way.dlsm.migrateDetached(way.a, way.b, args)).id;
      await body(way);
      await way.dlsm.nothingLeft();
    } finally {
      await way.dlsm.close();
    }
  }

  /** All is here, and the source is kept. */
  async synced(): Promise<void> {
    await this.dlsm.until(this.id, (status) => status?.phase === "synced", "synced");
  }

  async client(id = this.id): Promise<NbdClient> {
    return await NbdClient.connect(this.dlsm.socketOf(id));
  }

  /** Does `work` with one client; the engine has noticed its end, too. */
  async use(id: string, work: (client: NbdClient) => Promise<void>): Promise<void> {
    const client = await this.client(id);
    await work(client);
    await closed(client, this.dlsm, id);
  }

  /** Writes [offset, length] in bytes through the volume. Flushed only if it is said. */
  async write(id: string, extents: Extents, isFlushed = true): Promise<void> {
    await this.use(id, (client) => this.writeBy(client, extents, isFlushed));
  }

  async writeBy(client: NbdClient, extents: Extents, isFlushed = true): Promise<void> {
    for (const [offset, length] of extents) {
      const data = Buffer.alloc(length, (offset / 512 + 1) % 251 + 1);
      await client.write(offset, data);
      data.copy(this.expected, offset);
    }
    if (isFlushed) await client.flush();
  }

  /** Reads all of the volume. Nothing keeps it from being cut over then, if nobody has it open. */
  async check(id: string): Promise<void> {
    await this.use(id, (client) => this.checkBy(client, id));
  }

  async checkBy(client: NbdClient, id: string): Promise<void> {
    for (let at = 0; at < sizeMiB * MiB; at += MiB) {
      const data = await client.read(at, MiB);
      assert.ok(data.equals(this.expected.subarray(at, at + MiB)), `MiB ${at / MiB} of ${id}`);
    }
  }

  /** The id as which it goes back, and how it is called: `dlsm failback --detach`. */
  async back(...args: string[]): Promise<Pick<Detached, "id" | "status">> {
    const { stdout } = await this.dlsm.ok("failback", this.id, "--detach", "--json", ...args);
    const status = JSON.parse(stdout.trim().split("\n").at(-1)!);
    return { id: status.id, status };
  }

  checkA(): void {
    assert.ok(readFileSync(this.a).equals(this.expected), "the old source");
  }
}

/** The engine has noticed it too. */
async function closed(client: NbdClient, dlsm: Dlsm, id: string): Promise<void> {
  client.close();
  const { DLSM_STATE_DIR: state, DLSM_RUN_DIR: run } = dlsm.environment;
  const host = await localHost({ state: state!, run: run! });
  try {
    for (let round = 0; round < 500; round++) {
      const [entry] = await host.ask("destination.list", { id });
      if ((entry?.engine?.clients ?? 0) === 0) return;
      await sleep(10);
    }
    throw new Error("never: the client is gone");
  } finally {
    await host.close();
  }
}
