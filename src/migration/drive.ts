/**
 * Drives a migration from wherever it is to its end, as machine.ts says; follows it while another process
 * drives. It keeps nothing itself: it can be killed and started again, on the command line (`resume`) or in
 * the background. A host that cannot be reached is waited for; what the other one can do is done meanwhile.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { FailedError, LockedError, messageOf, PreconditionError, UnreachableError } from "../lib/errors.ts";
import type { MigrationStatus } from "../report/mod.ts";
import { RpcTimeoutError } from "../rpc/mod.ts";
import { type Context, endedStatusAt, lookOptions, observe, type Reached, reached } from "./context.ts";
import { nextSteps, type Step } from "./machine.ts";
import { Restarts } from "./restarts.ts";
import { endedStatus, statusOf } from "./status.ts";
import { doStep } from "./steps.ts";
import { destinationsOf, disksOf, isLost, type View } from "./view.ts";

const localPollMs = 200;
const remotePollMs = 500;
/** The source may be out of reach this long before its export is looked after. */
const patienceMs = 2_000;
/** Until a host that could not be reached is tried again. */
const firstRetryMs = 1_000;
const maxRetryMs = 30_000;

export interface Outcome {
  /** "gone": another process took the migration away. */
  readonly end: "done" | "gone";
  /** The last status that was seen. */
  readonly status: MigrationStatus | undefined;
}

export interface DriveOptions {
  /** The hand-off command, run if it was not yet; only where the user gave it. */
  readonly handoffCommand: string | null;
  /** End instead of following when another process drives. */
  readonly isBackground?: boolean;
}

export class Driver {
  readonly #context: Context;
  readonly #id: string;
  readonly #options: DriveOptions;
  readonly #source = new Patience();
  readonly #destination = new Patience();
  /** When each disk's engine was first seen without its source. */
  readonly #lostSinceMs = new Map<string, number>();
  readonly #restarts = new Restarts();
  #lastWarning: string | null = null;
  #note: string | null = null;
  /** The last that was seen done to a source after its hand-off. */
  #danger: string | null = null;
  #status: MigrationStatus | undefined;

  constructor(context: Context, id: string, options: DriveOptions) {
    this.#context = context;
    this.#id = id;
    this.#options = options;
  }

  /** Resolves at the end of the migration. Throws FailedError when somebody has to mend something first. */
  async run(): Promise<Outcome> {
    const { signal, source, destination } = this.#context;
    const pollMs = source.reach === null && destination.reach === null ? localPollMs : remotePollMs;
    try {
      for (;;) {
        signal.throwIfAborted();
        const end = await this.#turn();
        if (end !== undefined) return { end, status: this.#status };
        await sleep(pollMs, undefined, { signal });
      }
    } catch (error) {
      if (!signal.aborted) await this.#lastWords(error);
      throw error;
    } finally {
      if (!signal.aborted || this.#options.isBackground === true) await this.#leave(false);
    }
  }

  /** One look, and what can be done after it. */
  async #turn(): Promise<Outcome["end"] | undefined> {
    const { destination } = this.#context;
    if (!this.#destination.isDue()) return undefined;
    const view = await this.#observe();
    if (view.destinationProblem !== null) {
      this.#destination.failed();
      this.#warnOnce(`${view.destinationProblem}; trying again`);
      return undefined;
    }
    const wasAway = this.#destination.worked();
    if (destinationsOf(view).length === 0) return await this.#endedElsewhere();
    this.#status = statusOf(view);
    this.#context.reporter.progress(this.#status);
    this.#warnOnce(this.#status.lastError);
    try {
      if (!await destination.ask("driver.take", { id: this.#id })) {
        return this.#options.isBackground && !wasAway ? "gone" : undefined;
      }
      return await this.#doSteps(view) ? await this.#ended() : undefined;
    } catch (error) {
      // What it was about is looked up when the host is back.
      if (!(error instanceof UnreachableError)) throw error;
      return undefined;
    }
  }

  /** Another process drove it to its end, or took it away. */
  async #endedElsewhere(): Promise<Outcome["end"] | undefined> {
    const { answer, problem } = await reached(() => endedStatusAt(this.#context.destination, this.#id));
    if (problem !== null) return undefined;
    this.#status = answer ?? this.#status;
    return answer === undefined ? "gone" : "done";
  }

  async #observe(): Promise<View> {
    if (this.#source.isDue()) {
      const view = await observe(this.#context, this.#id);
      if (view.sourceProblem === null) this.#source.worked();
      else this.#source.failed(view.sourceProblem);
      return view;
    }
    const { destination } = this.#context;
    const ask = () => destination.ask("destination.list", { id: this.#id }, lookOptions(destination));
    const { answer, problem }: Reached<Awaited<ReturnType<typeof ask>>> = await reached(ask);
    return {
      id: this.#id,
      disks: disksOf(this.#id, [], answer ?? []),
      sourceProblem: this.#source.problem,
      destinationProblem: problem,
      isSourceKnown: false,
    };
  }

  /** True when the migration is over. */
  async #doSteps(view: View): Promise<boolean> {
    const all = nextSteps(view, { lost: this.#lost(view) });
    const steps = all.filter(({ name }) => name !== "command" || this.#options.handoffCommand !== null);
    let finished = 0;
    this.#danger = dangerOf(view) ?? this.#danger;
    let note = view.sourceProblem ?? this.#danger;
    const isLeft = ({ name }: Step) => view.sourceProblem !== null && needsSource.has(name);
    for (const step of steps) {
      this.#context.signal.throwIfAborted();
      if (isLeft(step)) continue;
      try {
        finished += await this.#do(view, step) ? 1 : 0;
      } catch (error) {
        if (!isWaitedOut(error, step) && !await this.#hasEngineEnded(view)) throw error;
        note = messageOf(error);
        this.#warnOnce(note);
      }
    }
    await this.#tell(note);
    // Somebody else may reach the source, or have the command: until the next look the place is free.
    const isForOthers = steps.length < all.length || steps.some(isLeft);
    if (this.#options.isBackground === true && isForOthers) await this.#leave(false);
    return finished === destinationsOf(view).length;
  }

  /** An engine that the view has was killed since: it is started again after the next look. */
  async #hasEngineEnded(view: View): Promise<boolean> {
    const now = await observe(this.#context, this.#id);
    const hasEngine = (entries: View, id: string) =>
      destinationsOf(entries).some((entry) => entry.id === id && entry.engine !== null);
    return destinationsOf(now).some(({ id }) => hasEngine(view, id) && !hasEngine(now, id));
  }

  /** True if this disk's migration is over. */
  async #do(view: View, step: Step): Promise<boolean> {
    if (step.name === "startEngine") this.#countRestart("the engine");
    if (step.name === "startExport") {
      this.#countRestart("tgtd");
      this.#lostSinceMs.delete(step.id);
    }
    return await doStep(this.#context, view, step, this.#options.handoffCommand);
  }

  #lost(view: View): Set<string> {
    const now = performance.now();
    const lost = new Set<string>();
    for (const entry of destinationsOf(view)) {
      if (!isLost(entry)) this.#lostSinceMs.delete(entry.id);
      else if (!this.#lostSinceMs.has(entry.id)) this.#lostSinceMs.set(entry.id, now);
      else if (now - this.#lostSinceMs.get(entry.id)! >= patienceMs) lost.add(entry.id);
    }
    return lost;
  }

  /** With all of its disks: some may have ended before the last look. */
  async #ended(): Promise<"done"> {
    const { answer } = await reached(() => endedStatusAt(this.#context.destination, this.#id));
    this.#status = endedStatus(answer ?? this.#status!, this.#danger);
    return "done";
  }

  /** Gives the driver's place back; at the destination, if it can be reached, where a process may go on. */
  async #leave(goOn: boolean): Promise<void> {
    try {
      await this.#context.destination.ask("driver.leave", { id: this.#id, goOn });
    } catch (error) {
      if (!(error instanceof UnreachableError)) throw error;
    }
  }

  /** What holds it up and may mend itself; what does not is an error in its place. */
  #warnOnce(problem: string | null): void {
    if (problem !== null && problem !== this.#lastWarning) {
      this.#context.reporter.message("warn", `${this.#id}: ${problem}`);
    }
    this.#lastWarning = problem;
  }

  /** Why it ends before the migration does, for whoever looks afterwards. */
  async #lastWords(error: unknown): Promise<void> {
    try {
      await this.#tell(messageOf(error));
    } catch {
      // The host may be what failed.
    }
  }

  /** For those who ask for the status elsewhere. */
  async #tell(note: string | null): Promise<void> {
    if (note === this.#note) return;
    this.#note = note;
    await this.#context.destination.ask("driver.note", { id: this.#id, note });
  }

  #countRestart(what: string): void {
    this.#context.reporter.message("warn", `${what} of ${this.#id} is gone: starting it again`);
    if (!this.#restarts.count(performance.now())) {
      throw new FailedError(`${what} of ${this.#id} ended again and again`, {
        hint: `see its log, then dlsm resume ${this.#id}`,
      });
    }
  }
}

const needsSource: ReadonlySet<Step["name"]> = new Set([
  "handOff",
  "fence",
  "settle",
  "startExport",
  "verify",
  "release",
]);

/** A host is away or busy, or a source is still in use when it is to be handed over: all of that passes. */
function isWaitedOut(error: unknown, { name }: Step): boolean {
  const isAway = error instanceof UnreachableError || error instanceof RpcTimeoutError;
  if (isAway || error instanceof LockedError) return true;
  return name === "handOff" && error instanceof PreconditionError;
}

/** What was done to a source after its hand-off; null if nothing was. */
function dangerOf({ disks }: View): string | null {
  return disks.find(({ source }) => source?.danger != null)?.source?.danger ?? null;
}

/** When a host that could not be reached is asked again. */
class Patience {
  problem: string | null = null;
  #retryMs = firstRetryMs;
  #dueAtMs = 0;

  isDue(): boolean {
    return performance.now() >= this.#dueAtMs;
  }

  failed(problem: string | null = null): void {
    this.problem = problem;
    this.#dueAtMs = performance.now() + this.#retryMs;
    this.#retryMs = Math.min(2 * this.#retryMs, maxRetryMs);
  }

  /** Whether it had failed before. */
  worked(): boolean {
    const hadFailed = this.#dueAtMs > 0;
    this.problem = null;
    this.#retryMs = firstRetryMs;
    this.#dueAtMs = 0;
    return hadFailed;
  }
}
