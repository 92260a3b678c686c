/**
 * The tasks of a session: they wait here for a connection, for room in the command window, or to be tried
 * again, and come back here when their connection is lost. Pure: time comes from the injected clock.
 */
import { type IscsiError, QueueFullError } from "./errors.ts";
import type { Settings } from "./options.ts";
import type { TaskSink } from "./read-request.ts";
import { planRetry } from "./retry.ts";
import type { Task } from "./task.ts";

/** What the dispatcher needs of a connection. */
export interface TaskCarrier {
  readonly canIssue: boolean;
  issue(task: Task): void;
  abandon(task: Task): void;
  /** Abandons all tasks on it, and names them. */
  abandonAll(): Task[];
}

export class Dispatcher implements TaskSink {
  readonly #settings: Settings;
  #connection: TaskCarrier | undefined;
  #isReady = false;
  /** Commands that identify the disk; they belong to one connection and are lost with it. */
  readonly #setup = new Set<Task>();
  readonly #setupQueue: Task[] = [];
  /** Everything else. */
  #queue: Task[] = [];
  /** Tasks that wait before they are tried again, with what cancels the wait. */
  readonly #delayed = new Map<Task, () => void>();
  readonly counts = { commands: 0, reissuedCommands: 0, unitAttentions: 0, busyRetries: 0 };

  constructor(settings: Settings) {
    this.#settings = settings;
  }

  get queued(): number {
    return this.#setupQueue.length + this.#queue.length + this.#delayed.size;
  }

  /** From the caller; it waits until the disk is identified. */
  submit(task: Task): void {
    this.#queue.push(task);
    this.pump();
  }

  /** A command that identifies the disk: goes out before it is, and fails with the connection. */
  submitSetup(task: Task): void {
    this.#setup.add(task);
    this.#setupQueue.push(task);
    this.pump();
  }

  /** Throws if no more requests may wait. */
  checkRoom(): void {
    if (this.#queue.length >= this.#settings.maxQueuedRequests) {
      throw new QueueFullError(`${this.#queue.length} requests wait already`);
    }
  }

  /** Gives a task up, wherever it is; the caller does not hear of it again. */
  abandon(task: Task): void {
    task.isAbandoned = true;
    this.#connection?.abandon(task);
    this.#cancelDelay(task);
    const at = this.#queue.indexOf(task);
    if (at >= 0) this.#queue.splice(at, 1);
  }

  attach(connection: TaskCarrier): void {
    this.#connection = connection;
  }

  /** The disk is identified: what waits may go. */
  begin(): void {
    this.#isReady = true;
    this.pump();
  }

  /** The connection is lost: what was on it goes to the head of the queue, in its old order. */
  detach(unfinished: readonly Task[], error: IscsiError): void {
    this.#connection = undefined;
    this.#isReady = false;
    const again = unfinished.filter((task) => !this.#setup.has(task));
    this.counts.reissuedCommands += again.length;
    this.#queue.unshift(...again);
    this.#setupQueue.length = 0;
    for (const task of [...this.#setup]) {
      this.#cancelDelay(task);
      this.#finish(task, error);
    }
  }

  /** Ends every task with `error`; those on the connection are abandoned there. */
  endAll(error: IscsiError): void {
    const tasks = new Set([
      ...this.#connection?.abandonAll() ?? [],
      ...this.#delayed.keys(),
      ...this.#setup,
      ...this.#queue,
    ]);
    for (const cancel of this.#delayed.values()) cancel();
    this.#delayed.clear();
    this.#setupQueue.length = 0;
    this.#queue = [];
    for (const task of tasks) this.#finish(task, error);
  }

  /** A status came for `task`. */
  onTaskDone(task: Task, error: IscsiError | undefined): void {
    const retry = error === undefined ? undefined : planRetry(task, error, this.#settings.random);
    if (retry === undefined) return this.#finish(task, error);
    if (retry.cause === "attention") this.counts.unitAttentions++;
    else this.counts.busyRetries++;
    if (retry.delayMs === 0) return this.#putFirst(task);
    const cancel = this.#settings.clock.after(retry.delayMs, () => {
      this.#delayed.delete(task);
      this.#putFirst(task);
      this.pump();
    });
    this.#delayed.set(task, cancel);
  }

  /** Issues what the connection takes now. */
  pump(): void {
    const connection = this.#connection;
    while (connection?.canIssue) {
      const task = this.#setupQueue.shift() ?? (this.#isReady ? this.#queue.shift() : undefined);
      if (task === undefined) return;
      this.counts.commands++;
      connection.issue(task);
    }
  }

  #putFirst(task: Task): void {
    if (this.#setup.has(task)) this.#setupQueue.unshift(task);
    else this.#queue.unshift(task);
  }

  #cancelDelay(task: Task): void {
    this.#delayed.get(task)?.();
    this.#delayed.delete(task);
  }

  #finish(task: Task, error: IscsiError | undefined): void {
    this.#setup.delete(task);
    task.onDone(error);
  }
}
