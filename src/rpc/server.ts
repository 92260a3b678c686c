/**
 * The answering end. Every call is answered exactly once, and counts against the credit (`max-calls`) until
 * its answer is written. A well-behaved client stays within the credit, so the calls held here, running or
 * waiting, are bounded without ever stopping to read; one that does not is cut off.
 */
import type { Duplex } from "node:stream";
import { clearTimeout, setTimeout } from "node:timers";
import { messageOf, PreconditionError } from "../lib/errors.ts";
import { RpcClosedError, RpcProtocolError, RpcTimeoutError } from "./errors.ts";
import { defaultMaxCalls, Link, type LinkOptions, maxTimerMs } from "./link.ts";
import { type CallMessage, errorToMessage, type Message } from "./messages.ts";

export interface CallContext {
  /** Aborted when the caller cancels, its deadline passes, or the connection is lost. */
  readonly signal: AbortSignal;
  /**
   * Tells the caller how far it is. Values are snapshots: while the caller does not take them, only the
   * latest is kept. Throws TypeError for what is not plain data.
   */
  progress(value: unknown): void;
}

/** What can be called, by name. A handler should end soon after its signal is aborted. */
export type Handlers = Record<string, (params: unknown, context: CallContext) => Promise<unknown>>;

export interface Served {
  /** Resolves (never rejects) when the conversation is over; handlers were told by their signals. */
  readonly closed: Promise<void>;
  /** Ends it now. Answers that were given are still handed over. */
  close(): void;
}

/** Answers the calls that come over `stream`, which belongs to the server from here on. */
export function serve(stream: Duplex, handlers: Handlers, options: LinkOptions = {}): Served {
  return new Server(stream, handlers, options);
}

interface RunningCall {
  readonly message: CallMessage;
  readonly controller: AbortController;
  readonly deadline: ReturnType<typeof setTimeout> | undefined;
  /** The latest progress that could not be sent yet. */
  unsent: { readonly value: unknown } | undefined;
}

/** A name that a stranger chose, in the error about it. */
function shortened(text: string): string {
  const maxLength = 100;
  return text.length <= maxLength ? text : `${text.slice(0, maxLength)}…`;
}

class Server implements Served {
  readonly closed: Promise<void>;
  readonly #handlers: Handlers;
  readonly #link: Link;
  readonly #maxCalls: number;
  /** All calls that were not answered yet. */
  readonly #calls = new Map<number, RunningCall>();
  /** Those of them that are started when the stream takes answers again. */
  #waiting: RunningCall[] = [];

  constructor(stream: Duplex, handlers: Handlers, options: LinkOptions) {
    this.#handlers = handlers;
    this.#maxCalls = options.maxCalls ?? defaultMaxCalls;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#link = new Link(stream, {
      onReady: () => {},
      onMessage: (message) => this.#received(message),
      onDrain: () => this.#drained(),
      onClose: (error) => {
        this.#abandonCalls(error);
        resolve();
      },
    }, options);
  }

  close(): void {
    this.#link.close();
  }

  #received(message: Message): void {
    switch (message.type) {
      case "call":
        return this.#called(message);
      case "cancel":
        // An id that is gone was answered while the cancellation was on its way.
        this.#calls.get(message.id)?.controller.abort();
        return;
      default:
        throw new RpcProtocolError(`the caller sent a message of type ${message.type}`);
    }
  }

  #called(message: CallMessage): void {
    if (this.#calls.has(message.id)) throw new RpcProtocolError(`the call ${message.id} was sent twice`);
    if (this.#calls.size >= this.#maxCalls) {
      throw new RpcProtocolError(`more than ${this.#maxCalls} calls at once`);
    }
    const controller = new AbortController();
    const { timeoutMs } = message;
    const expired = () =>
      controller.abort(new RpcTimeoutError(`"${message.method}" took longer than its deadline`));
    const deadline = timeoutMs === undefined
      ? undefined
      : setTimeout(expired, Math.min(timeoutMs, maxTimerMs));
    const call: RunningCall = { message, controller, deadline, unsent: undefined };
    this.#calls.set(message.id, call);
    if (this.#link.isBlocked) this.#waiting.push(call);
    else void this.#run(call);
  }

  async #run(call: RunningCall): Promise<void> {
    const { id, method, params } = call.message;
    const { signal } = call.controller;
    let answer: Message;
    try {
      if (!Object.hasOwn(this.#handlers, method)) {
        throw new PreconditionError(`the other side does not know "${shortened(method)}"`, {
          hint: "install the same version of dlsm on both hosts",
        });
      }
      const progress = (value: unknown) => this.#progress(call, value);
      const value = await this.#handlers[method](params, { signal, progress });
      answer = { type: "result", id, value };
    } catch (error) {
      answer = errorToMessage(id, error);
    }
    clearTimeout(call.deadline);
    this.#calls.delete(id);
    this.#answer(answer, method);
  }

  #answer(answer: Message & { readonly id: number }, method: string): void {
    try {
      this.#link.send(answer);
    } catch (error) {
      // Too large or no plain data: a mistake in the handler, which the caller is to see. This one always fits.
      const message = `the answer to "${shortened(method)}" cannot be sent: ${shortened(messageOf(error))}`;
      this.#link.send({ type: "error", id: answer.id, kind: "internal", message });
    }
  }

  #progress(call: RunningCall, value: unknown): void {
    const { id } = call.message;
    if (this.#calls.get(id) !== call) return;
    if (this.#link.isBlocked) call.unsent = { value };
    else this.#link.send({ type: "progress", id, value });
  }

  #drained(): void {
    for (const call of this.#calls.values()) {
      if (this.#link.isBlocked) return;
      const { unsent } = call;
      call.unsent = undefined;
      if (unsent !== undefined) this.#progress(call, unsent.value);
    }
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const call of waiting) {
      if (this.#link.isBlocked) this.#waiting.push(call);
      else void this.#run(call);
    }
  }

  #abandonCalls(error: Error | undefined): void {
    const reason = error ?? new RpcClosedError("the caller left");
    for (const call of this.#calls.values()) {
      clearTimeout(call.deadline);
      call.controller.abort(reason);
    }
    this.#waiting = [];
  }
}
