/** A disk that moves from node1 to node2, the first two hosts of a test's network. */
import { createHash } from "node:crypto";
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import type { MigrationStatus } from "../../src/report/mod.ts";
import { isMigrationId } from "../../src/role/mod.ts";
import { MiB } from "../helpers/disk.ts";
import { kill } from "../helpers/dlsm.ts";
import { programsOfHosts, type Running, type TestHost, TestNetwork } from "../helpers/hosts/mod.ts";
import { NbdClient } from "./nbd-client.ts";

export const programsOfTwoHosts = [...programsOfHosts, "tgtd", "tgtadm"];

/** The last object that a command printed with `--json`. */
export function lastJson<T = MigrationStatus>(stdout: string): T {
  return JSON.parse(stdout.trim().split("\n").at(-1)!);
}

export class Move {
  readonly net: TestNetwork;
  readonly from: TestHost;
  readonly to: TestHost;
  /** Paths, each on its host. */
  readonly source: string;
  readonly destination: string;
  /** What the destination must hold in the end, MiB by MiB, as hashes: the source's, until something is written. */
  readonly #expected: string[];
  readonly #before: readonly string[];

  private constructor(net: TestNetwork, sizeMiB: number) {
    this.net = net;
    [this.from, this.to] = net.hosts as [TestHost, TestHost];
    this.source = this.from.path("src.img");
    this.destination = this.to.path("dst.img");
    this.#before = makeRandomDisk(this.source, sizeMiB);
    this.#expected = [...this.#before];
  }

  /** All hosts are gone afterwards, however the body ends. */
  static async with(
    names: readonly string[],
    options: { readonly sizeMiB?: number; readonly family?: 4 | 6 },
    body: (move: Move) => Promise<void>,
  ): Promise<void> {
    const net = await TestNetwork.make(names, options);
    try {
      await body(new Move(net, options.sizeMiB ?? 16));
    } finally {
      await net.close();
    }
  }

  /** Source and destination as a command on `controller` names them. */
  places(controller: TestHost): [string, string] {
    const place = (host: TestHost, path: string) => host === controller ? path : `root@${host.name}:${path}`;
    return [place(this.from, this.source), place(this.to, this.destination)];
  }

  /** `dlsm migrate` in the foreground, left running. Its end is waited for with `within`. */
  start(controller: TestHost, ...args: string[]): Running {
    return controller.start("dlsm", ["migrate", ...this.places(controller), "--json", ...args]);
  }

  /** `dlsm migrate --detach`: what it printed. */
  async detached(controller: TestHost, ...args: string[]): Promise<MigrationStatus> {
    const { stdout } = await controller.ok(
      "migrate",
      ...this.places(controller),
      "--detach",
      "--json",
      ...args,
    );
    return lastJson(stdout);
  }

  /** The id of the one migration, when this host has begun to keep a record of it. */
  async idOn(host: TestHost, role: "source" | "destination"): Promise<string> {
    let found: string | undefined;
    await host.wait(() => (found = this.ids(host, role)[0]) !== undefined, `a record as ${role}`);
    return found!;
  }

  ids(host: TestHost, role: "source" | "destination"): string[] {
    const folder = join(host.env.DLSM_STATE_DIR!, role);
    if (!existsSync(folder)) return [];
    return readdirSync(folder).filter((id) => isMigrationId(id) && existsSync(join(folder, id, "journal")));
  }

  /** Writes whole MiB at the destination, through its volume. */
  async write(id: string, atMiB: readonly number[]): Promise<void> {
    const client = await NbdClient.connect(this.to.nbdSocket(id));
    try {
      for (const at of atMiB) {
        const data = randomMiB(`written/${at}`);
        await client.write(at * MiB, data);
        this.#expected[at] = hash(data);
      }
      await client.flush();
    } finally {
      client.close();
    }
  }

  /** Reads a MiB of the volume, which must be as it should be. */
  async check(id: string, atMiB: number): Promise<void> {
    const client = await NbdClient.connect(this.to.nbdSocket(id));
    try {
      assert.is(hash(await client.read(atMiB * MiB, MiB)), this.#expected[atMiB], `MiB ${atMiB}`);
    } finally {
      client.close();
    }
  }

  /** As the destination's `until`; if it never comes, what the driver said is told. */
  async until(
    id: string,
    condition: (status: MigrationStatus | undefined) => boolean,
    what: string,
    timeoutMs?: number,
  ): Promise<MigrationStatus | undefined> {
    try {
      return await this.to.until(id, condition, what, timeoutMs);
    } catch (error) {
      const log = join(this.to.env.DLSM_STATE_DIR!, "destination", id, "driver.log");
      const said = existsSync(log) ? readFileSync(log, "utf8") : "no driver.log";
      const processes = this.net.hosts.map((
        host,
      ) => [host.name, ...host.processes().map(({ command }) => command)]);
      throw new Error(`${(error as Error).message}\n${said}\n${JSON.stringify(processes, null, 1)}`, {
        cause: error,
      });
    }
  }

  /** Waits for the end, which comes by itself; then all must be right, and nothing left on any host. */
  async finished(id: string, timeoutMs?: number): Promise<void> {
    await this.until(id, (status) => status === undefined, "done", timeoutMs);
    this.checkDestination();
    await this.nothingLeft();
  }

  /** Everything was taken back: the source is as it was, and nothing is left on any host. */
  async takenBack(): Promise<void> {
    assert.not.ok(existsSync(this.destination), "no destination");
    await this.nothingLeft();
  }

  checkDestination(): void {
    assert.equal(hashesOf(this.destination), this.#expected, "the destination's content");
  }

  async nothingLeft(): Promise<void> {
    assert.equal(hashesOf(this.source), this.#before, "the source is as it was");
    // The next command takes what ended meanwhile out of its host's address book.
    const withBook = this.net.hosts.filter((host) =>
      host.leftovers().some((path) => path.includes("/hosts/"))
    );
    await Promise.all(withBook.map((host) => host.dlsm("status")));
    await Promise.all(this.net.hosts.map((host) => host.nothingLeft()));
  }
}

/** What runs of dlsm on a host, by what it is. */
export const looksLike = {
  engine: /(^| )engine \//,
  tgtd: /(^|\/)tgtd /,
  role: / role$/,
  driver: / drive [a-z0-9]+$/,
  /** Without the shell that ssh's server runs it with. */
  command: /main\.ts (migrate|resume) /,
} as const;
export type Part = keyof typeof looksLike;

export function pidsOn(host: TestHost, part: Part): number[] {
  return host.processes().filter(({ command }) => looksLike[part].test(command) && !/ -c /.test(command))
    .map(({ pid }) => pid);
}

/** `kill -9`; waits until they are gone. Throws if there was none. */
export async function killOn(host: TestHost, part: Part): Promise<void> {
  const pids = pidsOn(host, part);
  if (pids.length === 0) {
    throw new Error(`no ${part} on ${host.name} to kill: ${JSON.stringify(host.processes())}`);
  }
  for (const pid of pids) kill(pid, "SIGKILL");
  await host.wait(() => !host.processes().some(({ pid }) => pids.includes(pid)), `${part} ends`);
}

function randomMiB(seed: string): Buffer {
  const data = Buffer.alloc(MiB);
  for (let at = 0; at < MiB; at += 64) {
    createHash("sha512").update(`${seed}/${at}`).digest().copy(data, at);
  }
  return data;
}

function makeRandomDisk(path: string, sizeMiB: number): string[] {
  const hashes: string[] = [];
  writeFileSync(path, "", { mode: 0o600 });
  for (let at = 0; at < sizeMiB; at++) {
    const data = randomMiB(`source/${at}`);
    writeFileSync(path, data, { flag: "a" });
    hashes.push(hash(data));
  }
  return hashes;
}

/** Of each MiB of a file. */
function hashesOf(path: string): string[] {
  const hashes: string[] = [];
  const descriptor = openSync(path, "r");
  const piece = Buffer.alloc(MiB);
  try {
    for (let at = 0;; at += MiB) {
      const bytes = readSync(descriptor, piece, 0, MiB, at);
      if (bytes === 0) return hashes;
      hashes.push(hash(piece.subarray(0, bytes)));
    }
  } finally {
    closeSync(descriptor);
  }
}

function hash(data: Uint8Array): string {
  return createHash("sha1").update(data).digest("hex");
}
