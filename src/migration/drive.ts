/**
 * Drives a migration from wherever it is to its end: keeps engine and export running, and when all blocks are
 * here verifies, releases the source and cuts over. It keeps nothing itself: it can be killed and started
 * again, on the command line (`resume`) or in the background.
 *
 * | phase    | what it does                                                              |
 * |----------|---------------------------------------------------------------------------|
 * | attached | waits for `activate` (or the first write)                                 |
 * | active   | waits for the sync                                                        |
 * | synced   | verifies if asked to, lets the engine log out, releases the export        |
 * | released | cuts over when no client is connected (unless held, or when forced)       |
 */
import { setTimeout as sleep } from "node:timers/promises";
import { FailedError } from "../lib/errors.ts";
import type { MigrationStatus } from "../report/mod.ts";
import type { DestinationEntry } from "../role/mod.ts";
import { type Context, entriesOf } from "./context.ts";
import { phaseOf, statusOf } from "./status.ts";
import { requireSame, verify } from "./verify.ts";

const pollMs = 200;
/** The source may be out of reach this long before its export is looked after. */
const patienceMs = 2_000;
/** Engines or exports started again within one run at most; more, and something is wrong with them. */
const maxRestarts = 20;

export interface Outcome {
  /** "gone": another process ended the migration meanwhile. */
  readonly end: "done" | "gone";
  /** The last status that was seen. */
  readonly status: MigrationStatus | undefined;
  readonly comparedBytes: number | undefined;
}

export class Driver {
  readonly #context: Context;
  readonly #id: string;
  #restarts = 0;
  #lastWarning: string | null = null;
  #unreachableSinceMs: number | undefined;
  #status: MigrationStatus | undefined;
  #comparedBytes: number | undefined;

  constructor(context: Context, id: string) {
    this.#context = context;
    this.#id = id;
  }

  /** Resolves at the end of the migration. Throws FailedError when somebody has to mend something first. */
  async run(): Promise<Outcome> {
    const { signal } = this.#context;
    for (;;) {
      signal.throwIfAborted();
      const { destination: entry, source } = await entriesOf(this.#context, this.#id);
      if (entry === undefined) {
        return { end: "gone", status: this.#status, comparedBytes: this.#comparedBytes };
      }
      this.#status = statusOf(entry, source);
      this.#context.reporter.progress(this.#status);
      this.#warnOnce(this.#status.lastError);
      await this.#keepRunning(entry);
      if (await this.#advance(entry)) {
        this.#status = endedStatus(this.#status);
        return { end: "done", status: this.#status, comparedBytes: this.#comparedBytes };
      }
      await sleep(pollMs, undefined, { signal });
    }
  }

  /** One step forward, if there is one to make now. True at the end. */
  async #advance(entry: DestinationEntry): Promise<boolean> {
    const { destination, source } = this.#context;
    const id = this.#id;
    const phase = phaseOf(entry);
    if (phase === "active" && entry.engine?.sync === "stopped") {
      const { host, path } = entry.destination;
      const why = entry.engine.lastError ?? "it did not say why";
      throw new FailedError(`the sync of ${id} to ${host}:${path} stopped: ${why}`, {
        hint: `mend that (make space, for instance), then dlsm resume ${id}; the volume goes on meanwhile`,
      });
    }
    if (phase === "synced") {
      if (entry.options.verify && entry.verified === null) {
        const verified = await verify(this.#context, id);
        this.#comparedBytes = verified.comparedBytes;
        requireSame(id, verified);
      } else if (entry.verified === "different") {
        throw new FailedError(`verification of ${id} found a difference`, {
          hint: `look again with dlsm verify ${id}`,
        });
      }
      await destination.ask("destination.detachSource", { id });
      if (!entry.options.byTicket) await source.ask("source.release", { id, force: true });
      await destination.ask("destination.setReleased", { id });
      return false;
    }
    if (phase !== "released") return false;
    const { isDone } = await destination.ask("destination.finish", { id });
    return isDone;
  }

  /** Starts again what was killed. */
  async #keepRunning(entry: DestinationEntry): Promise<void> {
    const { destination, source } = this.#context;
    const id = this.#id;
    if (entry.state === "finishing") return;
    if (entry.state !== "attached") {
      throw new FailedError(`${id} was not set up completely`, { hint: `dlsm resume ${id} does it over` });
    }
    if (entry.engine === null) {
      this.#countRestart("the engine");
      await destination.ask("destination.ensure", { id, export: null, force: false });
      return;
    }
    const isNeeded = entry.engine.state !== "synced" && !entry.isReleased && !entry.options.byTicket;
    if (!isNeeded || entry.engine.isConnected) {
      this.#unreachableSinceMs = undefined;
      return;
    }
    this.#unreachableSinceMs ??= performance.now();
    if (performance.now() - this.#unreachableSinceMs < patienceMs) return;
    this.#unreachableSinceMs = undefined;
    const [before] = await source.ask("source.list", { id });
    if (before !== undefined && before.tgtdPid !== null) return;
    this.#countRestart("tgtd");
    const ticket = await source.ask("source.ensure", { id, force: false });
    await destination.ask("destination.ensure", { id, export: ticket, force: false });
  }

  /** What holds it up and may mend itself; what does not is an error in its place. */
  #warnOnce(problem: string | null): void {
    if (problem !== null && problem !== this.#lastWarning) {
      this.#context.reporter.message("warn", `${this.#id}: ${problem}`);
    }
    this.#lastWarning = problem;
  }

  #countRestart(what: string): void {
    this.#context.reporter.message("warn", `${what} of ${this.#id} is gone: starting it again`);
    if (++this.#restarts > maxRestarts) {
      throw new FailedError(`${what} of ${this.#id} ended again and again`, {
        hint: `see its log, then dlsm resume ${this.#id}`,
      });
    }
  }
}

/** The last status of a migration that is done. */
export function endedStatus(status: MigrationStatus): MigrationStatus {
  return { ...status, phase: "done", disks: status.disks.map(ended), lastError: null };
}

function ended<T extends { readonly nbdUri: string | null; readonly enginePid: number | null }>(disk: T): T {
  return { ...disk, nbdUri: null, enginePid: null, rateBytesPerSecond: 0, etaSeconds: 0 };
}
