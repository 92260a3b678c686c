/** The migration itself, with two clients that use the disk while it moves. */
import { setTimeout as sleep } from "node:timers/promises";
import { DifferenceError, DlsmError, FailedError, messageOf } from "../lib/errors.ts";
import type { ProcessId } from "../lib/process-id.ts";
import { formatDuration, formatSize } from "../lib/units.ts";
import {
  type Context,
  Driver,
  handOffNew,
  limit,
  newId,
  type Outcome,
  planMigration,
  setUp,
  statusById,
} from "../migration/mod.ts";
import type { DiskStatus, Reporter } from "../report/mod.ts";
import { localHost, type RoleFolders } from "../role/mod.ts";
import { Account, Reader, Writer } from "./clients.ts";
import type { ExpectedDisk } from "./expected-disk.ts";
import { killProcessesOf, processesOf } from "./leftovers.ts";
import { QemuIo } from "./qemu-io.ts";
import { Random } from "./random.ts";
import type { SampleDisk } from "./sample-disk.ts";

/** While the clients do most of their work, the sync alone would need this long. */
const limitedSyncSeconds = 20;
const firstReads = 8;
const pollMs = 100;

export interface MoveOptions {
  readonly disk: SampleDisk;
  readonly expected: ExpectedDisk;
  readonly destination: string;
  readonly qemuIo: string;
  /** The demo's own. */
  readonly folder: string;
  readonly folders: RoleFolders;
  readonly reporter: Reporter;
  readonly signal: AbortSignal;
}

export interface Moved {
  readonly account: Account;
  /** From the start of the migration to the client's first answer. */
  readonly usableAfterMs: number;
  /** What the client waited for each of its first reads. */
  readonly firstReadsMs: readonly number[];
  readonly tookMs: number;
  /** At the end. */
  readonly status: DiskStatus;
  /** Engine and tgtd, as they ran. */
  readonly processes: readonly ProcessId[];
}

/** Migrates the disk; if that fails or is interrupted, the migration is taken away again. */
export async function move(options: MoveOptions): Promise<Moved> {
  const { folders, reporter, signal } = options;
  const host = await localHost(folders);
  // The clients stop when the migration fails, and the other way round.
  const stop = new AbortController();
  const context: Context = {
    source: host,
    destination: host,
    reporter,
    signal: AbortSignal.any([signal, stop.signal]),
  };
  try {
    return await new Move(options, context, stop).run();
  } finally {
    await killProcessesOf(folders);
    await host.close();
  }
}

class Move {
  readonly #options: MoveOptions;
  readonly #context: Context;
  readonly #stop: AbortController;
  readonly #startedAt = performance.now();
  readonly #account = new Account();

  constructor(options: MoveOptions, context: Context, stop: AbortController) {
    this.#options = options;
    this.#context = context;
    this.#stop = stop;
  }

  async run(): Promise<Moved> {
    const { disk, destination, folders } = this.#options;
    const context = this.#context;
    const id = newId();
    await planMigration(context, {
      id,
      disks: [{ source: disk.path, destination }],
      portal: null,
      tunnel: false,
      handoff: "now",
      isByCommand: false,
      activation: "explicit",
      blockBytes: 4096,
      bytesPerSecond: Math.ceil(disk.layout.dataBytes / limitedSyncSeconds),
      sourceTimeoutMs: null,
      verify: true,
      holdCutover: false,
      keepSource: false,
      force: false,
    });
    let driving: Promise<Outcome> | undefined;
    let problem: unknown;
    try {
      await handOffNew(context, await setUp(context, id), { isForced: false, command: null });
      driving = new Driver(context, id, { handoffCommand: null }).run();
      driving.catch((error) => {
        problem ??= error;
        this.#stop.abort();
      });
      const processes = processesOf(folders);
      const used = await this.#use(id);
      const { end, status } = await driving;
      if (end !== "done" || status === undefined) throw new FailedError("the migration went away");
      return {
        account: this.#account,
        ...used,
        tookMs: performance.now() - this.#startedAt,
        status: status.disks[0],
        processes,
      };
    } catch (error) {
      problem ??= error;
      this.#stop.abort();
      await driving?.catch(() => {});
      await this.#takeAway(id);
      throw driving === undefined ? problem : withoutAdvice(problem);
    }
  }

  /** From the first read to the moment when everything is here. */
  async #use(id: string): Promise<Pick<Moved, "usableAfterMs" | "firstReadsMs">> {
    const { disk, expected } = this.#options;
    const uri = (await statusById(this.#context, id)).disks[0].nbdUri;
    if (uri === null) throw new FailedError("the engine ended at once");
    const clients: QemuIo[] = [];
    try {
      const io = await this.#connect(uri, "reader");
      clients.push(io);
      const reader = new Reader(io, this.#account, expected, disk, new Random("reader"));
      const firstReadsMs = [await reader.readBlock()];
      const usableAfterMs = performance.now() - this.#startedAt;
      this.#say(`usable after ${formatDuration(usableAfterMs)}: the client has its first answer`);
      while (firstReadsMs.length < firstReads) firstReadsMs.push(await reader.readBlock());

      const writerIo = await this.#connect(uri, "writer");
      clients.push(writerIo);
      const writer = new Writer(writerIo, this.#account, expected, disk, new Random("writer"));
      await Promise.all([reader.readALot(), writer.writeALot()]);
      const { reads, writes, writtenBytes } = this.#account;
      const before = (await statusById(this.#context, id)).disks[0];
      this.#say(
        `so far ${reads} reads and ${writes} writes (${formatSize(writtenBytes)}) of the clients, with ` +
          `${formatSize(before.sizeBytes - before.residentBytes)} of the disk not here yet (holes included)`,
      );

      this.#say("the sync may go at full speed now; a client goes on reading");
      await limit(this.#context, id, null);
      await this.#readUntilSynced(id, reader);
      for (const client of clients) await client.close();
      return { usableAfterMs, firstReadsMs };
    } finally {
      for (const client of clients) await client.kill();
    }
  }

  #connect(uri: string, name: string): Promise<QemuIo> {
    const { qemuIo, folder } = this.#options;
    return QemuIo.connect({ program: qemuIo, uri, folder, name, signal: this.#context.signal });
  }

  async #readUntilSynced(id: string, reader: Reader): Promise<void> {
    let isSynced = false;
    const reading = (async () => {
      while (!isSynced) await reader.readSome();
    })();
    try {
      while ((await statusById(this.#context, id)).phase === "active") {
        await sleep(pollMs, undefined, { signal: this.#context.signal });
      }
    } finally {
      isSynced = true;
      await reading;
    }
  }

  /** On both sides, whatever it has come to. */
  async #takeAway(id: string): Promise<void> {
    const { source, destination } = this.#context;
    try {
      await destination.ask("destination.abort", { id, force: true });
      await source.ask("source.release", { id, force: true });
    } catch (error) {
      this.#options.reporter.message("warn", `taking the migration away: ${messageOf(error)}`);
    }
  }

  #say(text: string): void {
    this.#options.reporter.message("info", text);
  }
}

/** What a migration's errors advise is for one that is still there. */
function withoutAdvice(error: unknown): unknown {
  if (!(error instanceof DlsmError)) return error;
  const details = { hint: "nothing of it is left; if it happens again, please report it", cause: error };
  return error instanceof DifferenceError
    ? new DifferenceError(error.message, details)
    : new FailedError(error.message, details);
}
