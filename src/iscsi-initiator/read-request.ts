/** One read of the caller: cut into commands that the target takes, a few of them under way at a time. Pure. */
import type { IscsiError } from "./errors.ts";
import type { Identity } from "./options.ts";
import { read16 } from "./scsi.ts";
import { Task } from "./task.ts";

/** Where the commands go. */
export interface TaskSink {
  submit(task: Task): void;
  abandon(task: Task): void;
}

/** Commands of one read that are queued or on the wire at once, so that a huge read needs no huge queue. */
const maxPieces = 16;

export class ReadRequest {
  readonly #sink: TaskSink;
  readonly #identity: Identity;
  readonly #offsetBytes: number;
  readonly #into: Uint8Array;
  readonly #settle: (error: Error | undefined) => void;
  #startedBytes = 0;
  readonly #pieces = new Set<Task>();
  #isOver = false;

  /** Calls `settle` once: when all of `into` is there, or with what prevented it. */
  constructor(
    sink: TaskSink,
    identity: Identity,
    offsetBytes: number,
    into: Uint8Array,
    settle: (error: Error | undefined) => void,
  ) {
    this.#sink = sink;
    this.#identity = identity;
    this.#offsetBytes = offsetBytes;
    this.#into = into;
    this.#settle = settle;
  }

  start(): void {
    const { blockBytes, maxTransferBlocks } = this.#identity;
    while (!this.#isOver && this.#pieces.size < maxPieces && this.#startedBytes < this.#into.length) {
      const fromBytes = this.#startedBytes;
      const lengthBytes = Math.min(this.#into.length - fromBytes, maxTransferBlocks * blockBytes);
      const lba = (this.#offsetBytes + fromBytes) / blockBytes;
      const into = this.#into.subarray(fromBytes, fromBytes + lengthBytes);
      const command = read16(lba, lengthBytes / blockBytes, blockBytes);
      const task: Task = new Task(command, into, true, (error) => this.#onPieceDone(task, error));
      this.#startedBytes += lengthBytes;
      this.#pieces.add(task);
      this.#sink.submit(task);
    }
  }

  /** Gives the read up; `into` is not written to any more. */
  cancel(error: Error): void {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const task of this.#pieces) this.#sink.abandon(task);
    this.#settle(error);
  }

  #onPieceDone(task: Task, error: IscsiError | undefined): void {
    this.#pieces.delete(task);
    if (this.#isOver) return;
    if (error !== undefined) return this.cancel(error);
    if (this.#startedBytes < this.#into.length) return this.start();
    if (this.#pieces.size > 0) return;
    this.#isOver = true;
    this.#settle(undefined);
  }
}
