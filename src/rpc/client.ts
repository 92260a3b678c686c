/**
 * The calling end. At most `max-calls` calls (the smaller of both sides' limits) are on their way; the rest
 * waits here, in order. A call that was cancelled or ran out of time keeps its place until the server has
 * answered it, because until then it still runs there.
 */
import type { Duplex } from "node:stream";
import { clearTimeout, setTimeout } from "node:timers";
import { FailedError } from "../lib/errors.ts";
import { RpcClosedError, RpcProtocolError, RpcTimeoutError } from "./errors.ts";
import { type Banner, numericCapability } from "./frames.ts";
import { defaultMaxCalls, Link, type LinkOptions, maxTimerMs } from "./link.ts";
import { type Message, messageToError } from "./messages.ts";

export interface CallOptions {
  /** The deadline, from now; includes the time in the queue. Default: none. */
  readonly timeoutMs?: number;
  /** Cancels the call: it rejects with the signal's reason at once, and the handler's signal is aborted. */
  readonly signal?: AbortSignal;
  onProgress?(value: unknown): void;
}

export interface ClientOptions extends LinkOptions {
  /** Calls that may wait for their turn; default 1024. */
  readonly maxQueuedCalls?: number;
}

interface PendingCall {
  readonly id: number;
  readonly method: string;
  readonly params: unknown;
  /** On performance.now()'s clock. */
  readonly deadlineMs: number | undefined;
  readonly onProgress: ((value: unknown) => void) | undefined;
  /** Settles the caller's promise; undefined once that is done. */
  settle: ((outcome: { readonly value: unknown } | { readonly error: unknown }) => void) | undefined;
}

export class RpcClient {
  /** Resolves (never rejects) when the conversation is over, whoever ended it. */
  readonly closed: Promise<void>;
  readonly #link: Link;
  readonly #maxQueuedCalls: number;
  #maxCalls: number;
  #nextId = 0;
  #queue: PendingCall[] = [];
  /** Calls that were sent and not answered yet, given up or not. */
  readonly #sent = new Map<number, PendingCall>();
  /** Why calls fail from now on; set at the end. */
  #end: Error | undefined;

  /**
   * Begins a conversation over `stream`, which belongs to the client from here on. Rejects with
   * RpcHandshakeError if the other side is no dlsm, of another version, or silent.
   */
  static connect(stream: Duplex, options: ClientOptions = {}): Promise<RpcClient> {
    return new Promise((resolve, reject) => {
      const client: RpcClient = new RpcClient(stream, options, () => resolve(client), reject);
    });
  }

  private constructor(
    stream: Duplex,
    options: ClientOptions,
    onReady: () => void,
    onFailure: (error: Error) => void,
  ) {
    this.#maxCalls = options.maxCalls ?? defaultMaxCalls;
    this.#maxQueuedCalls = options.maxQueuedCalls ?? 1024;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#link = new Link(stream, {
      onReady: (banner) => {
        this.#greeted(banner);
        onReady();
      },
      onMessage: (message) => this.#received(message),
      onDrain: () => this.#pump(),
      onClose: (error) => {
        this.#closed(error);
        onFailure(this.#end!);
        resolve();
      },
    }, options);
  }

  /**
   * Calls a method of the other side; `params` and the result are plain data (see lib/cbor.ts).
   * Rejects with the handler's DlsmError (same class, message and hint), RemoteError for any other error
   * there, RpcTimeoutError, the signal's reason, RpcClosedError if the connection is lost before the answer,
   * or TypeError for params that are not plain data.
   */
  call(method: string, params: unknown = null, options: CallOptions = {}): Promise<unknown> {
    const { timeoutMs, signal, onProgress } = options;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      if (this.#end !== undefined) return reject(this.#end);
      if (this.#queue.length >= this.#maxQueuedCalls) {
        return reject(new FailedError(`"${method}": ${this.#queue.length} calls wait already`));
      }
      const deadlineMs = timeoutMs === undefined ? undefined : performance.now() + timeoutMs;
      const call: PendingCall = { id: this.#nextId++, method, params, deadlineMs, onProgress, settle };
      const expire = () =>
        this.#giveUp(call, new RpcTimeoutError(`"${method}" took longer than ${timeoutMs} ms`));
      const cancel = () => this.#giveUp(call, signal?.reason);
      const timer = timeoutMs === undefined ? undefined : setTimeout(expire, Math.min(timeoutMs, maxTimerMs));
      signal?.addEventListener("abort", cancel, { once: true });

      function settle(outcome: { readonly value: unknown } | { readonly error: unknown }): void {
        call.settle = undefined;
        clearTimeout(timer);
        signal?.removeEventListener("abort", cancel);
        if ("error" in outcome) reject(outcome.error);
        else resolve(outcome.value);
      }
      this.#queue.push(call);
      this.#pump();
    });
  }

  /** Ends the conversation; calls that are not answered reject with RpcClosedError. */
  close(): void {
    this.#link.close();
  }

  #greeted(banner: Banner): void {
    this.#maxCalls = Math.min(this.#maxCalls, numericCapability(banner, "max-calls") ?? this.#maxCalls);
  }

  /** Sends what may be sent. */
  #pump(): void {
    while (this.#queue.length > 0 && this.#sent.size < this.#maxCalls && !this.#link.isBlocked) {
      const call = this.#queue.shift()!;
      try {
        this.#send(call);
      } catch (error) {
        this.#sent.delete(call.id);
        call.settle?.({ error });
      }
    }
  }

  #send(call: PendingCall): void {
    const { id, method, params, deadlineMs } = call;
    this.#sent.set(id, call);
    const message = { type: "call", id, method, params } as const;
    if (deadlineMs === undefined) return this.#link.send(message);
    const timeoutMs = Math.min(Math.max(1, Math.round(deadlineMs - performance.now())), maxTimerMs);
    this.#link.send({ ...message, timeoutMs });
  }

  #giveUp(call: PendingCall, error: unknown): void {
    if (this.#sent.has(call.id)) this.#link.send({ type: "cancel", id: call.id });
    else this.#queue = this.#queue.filter((other) => other !== call);
    call.settle?.({ error });
  }

  #received(message: Message): void {
    if (message.type !== "progress" && message.type !== "result" && message.type !== "error") {
      throw new RpcProtocolError(`the answering side sent a message of type ${message.type}`);
    }
    const call = this.#sent.get(message.id);
    if (call === undefined) {
      throw new RpcProtocolError(`an answer to the call ${message.id}, which is not open`);
    }
    if (message.type === "progress") return this.#progressed(call, message.value);

    this.#sent.delete(message.id);
    if (message.type === "error") call.settle?.({ error: messageToError(message) });
    else call.settle?.({ value: message.value });
    this.#pump();
  }

  #progressed(call: PendingCall, value: unknown): void {
    if (call.settle === undefined) return;
    try {
      call.onProgress?.(value);
    } catch (error) {
      this.#giveUp(call, error);
    }
  }

  #closed(error: Error | undefined): void {
    this.#end = error ?? new RpcClosedError("the connection was closed", {
      hint: "check what happened on the other side, then use dlsm resume",
    });
    const calls = [...this.#sent.values(), ...this.#queue];
    this.#sent.clear();
    this.#queue = [];
    for (const call of calls) call.settle?.({ error: this.#end });
  }
}
