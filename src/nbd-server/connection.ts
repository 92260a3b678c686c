/**
 * One client: ties its socket to the device.
 *
 *     phase          the socket's bytes                        ends with
 *     handshake      go to the handshake                       transmission, or close
 *     transmission   go to the request decoder while the       NBD_CMD_DISC, end of file, an error, drop()
 *                    budget lasts, else the socket is paused
 *     disconnecting  are ignored; what is in flight finishes   close
 *     closed         none; late results of the device are dropped
 *
 * Replies of one turn of the event loop are collected and written together (writev), without assembling
 * them. Requests and replies are charged to the budget, so a client that does not read its replies is not
 * read either, and holds no more than its budget.
 *
 * A READ or WRITE for which there is no room even when it is alone is executed in parts, one after the other
 * and each alone, so that the reply is the same as in one go.
 */
import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import type { Budget } from "./budget.ts";
import { costBytesOf, type CostRules, requestCostBytes } from "./costs.ts";
import type { BlockDevice } from "./device.ts";
import { execute, type Failure, type Outcome, replyTo } from "./execute.ts";
import { type ExportDescription, Handshake, type Session } from "./handshake.ts";
import { command, maxDrainedPayloadBytes, NbdProtocolError } from "./protocol.ts";
import { isOnePiece } from "./replies.ts";
import { type Admission, type Request, RequestDecoder } from "./request-decoder.ts";
import type { BufferPool } from "../lib/buffer-pool.ts";
import { isHungUp } from "../lib/libc.ts";
import { refusalOf, type RequestRules } from "./validation.ts";

/** What a connection has of the server. */
export interface ConnectionSetting {
  readonly budget: Budget;
  readonly pool: BufferPool;
  readonly handshakeTimeoutMs: number;
}

export interface ConnectionEvents {
  /** The transmission phase began. */
  onTransmission(): void;
  onClosed(): void;
  /** The client broke the protocol (and is dropped), or the device its contract. */
  onError(error: Error): void;
}

export class Connection {
  readonly #socket: Socket;
  readonly #device: BlockDevice;
  readonly #events: ConnectionEvents;
  readonly #handshake: Handshake;
  readonly #handshakeTimer: ReturnType<typeof setTimeout>;
  readonly #pool: BufferPool;
  readonly #decoder: RequestDecoder;
  readonly #budget: Budget;
  /** Aborted when the client is gone: what waits in the device is not begun any more. */
  readonly #gone = new AbortController();
  #phase: "handshake" | "transmission" | "disconnecting" | "closed" = "handshake";
  #session: Session = { structuredReplies: false, metaContexts: [] };
  #rules: RequestRules & CostRules = {
    sizeBytes: 0,
    preferredBlockBytes: 1,
    structuredReplies: false,
    metaContextCount: 0,
  };
  /** Of the request that the decoder is receiving: why it is refused, and what it was charged. */
  #refusal: Failure | undefined;
  #costBytes = 0;
  /** Of the request that is executed in parts: what became of one of them. */
  #partFailure: Failure | undefined;
  /** The end of file came while requests wait. */
  #isEnded = false;
  /** What the device has not settled yet. */
  #deviceRequests = 0;
  #deviceBytes = 0;
  /** Replies of this turn, with what they release once the socket has taken them. */
  #outbox: Uint8Array[] = [];
  #outboxRequests = 0;
  #outboxBytes = 0;

  constructor(
    socket: Socket,
    device: BlockDevice,
    exportDescription: ExportDescription,
    { budget, pool, handshakeTimeoutMs }: ConnectionSetting,
    events: ConnectionEvents,
  ) {
    this.#socket = socket;
    this.#device = device;
    this.#events = events;
    this.#budget = budget;
    this.#pool = pool;
    this.#decoder = new RequestDecoder(pool);
    this.#handshake = new Handshake(exportDescription);
    this.#handshakeTimer = setTimeout(
      () => this.#violation("no handshake in time"),
      handshakeTimeoutMs,
    );
    socket.on("data", (chunk: Buffer) => this.#onData(chunk));
    socket.on("end", () => this.#onEnd());
    // A client that vanished is nothing to report; "close" follows.
    socket.on("error", () => {});
    socket.on("close", () => this.#onClose());
    socket.write(this.#handshake.greeting());
  }

  get isInTransmission(): boolean {
    return this.#phase === "transmission" || this.#phase === "disconnecting";
  }

  get session(): Session {
    return this.#session;
  }

  /** Requests whose replies the socket has not taken yet. */
  get requestsInFlight(): number {
    return this.#budget.requests;
  }

  /** Bytes charged to the budget. */
  get bytesInFlight(): number {
    return this.#budget.bytes;
  }

  /**
   * A client may go while its socket is paused with requests of it unread: the end of file comes after them, and
   * they are not read before the others are done. Drops it then.
   */
  dropIfHungUp(): void {
    if (this.#phase !== "transmission" || !this.#decoder.isWaiting) return;
    const { _handle: handle } = this.#socket as { _handle?: { readonly fd?: number } };
    if (handle?.fd !== undefined && handle.fd >= 0 && isHungUp(handle.fd)) this.drop();
  }

  /** Ends the connection at once, without a reply. What the device still does is not waited for. */
  drop(): void {
    this.#phase = "closed";
    this.#gone.abort();
    this.#socket.destroy();
  }

  #onData(chunk: Uint8Array): void {
    if (this.#phase === "handshake") this.#negotiate(chunk);
    else if (this.#phase === "transmission") {
      this.#decoder.push(chunk);
      this.#pump();
    }
  }

  /**
   * End of file without NBD_CMD_DISC: the client is gone. After one, which may be among the requests that wait,
   * it may still read its replies.
   */
  #onEnd(): void {
    if (this.#phase === "transmission" && this.#decoder.isWaiting) {
      this.#isEnded = true;
      return this.dropIfHungUp();
    }
    this.#gone.abort();
    if (this.#phase !== "disconnecting") this.drop();
  }

  #onClose(): void {
    clearTimeout(this.#handshakeTimer);
    this.#phase = "closed";
    this.#gone.abort();
    this.#outbox = [];
    this.#budget.leave(this.#deviceRequests, this.#deviceBytes);
    this.#events.onClosed();
  }

  #violation(reason: string): void {
    if (this.#phase === "closed") return this.drop();
    this.#events.onError(new NbdProtocolError(`NBD client dropped: ${reason}`));
    this.drop();
  }

  #negotiate(chunk: Uint8Array): void {
    const { replies, outcome } = this.#handshake.feed(chunk);
    const answer = Buffer.concat(replies);
    switch (outcome.kind) {
      case "more":
        if (answer.length > 0) this.#socket.write(answer);
        return;
      case "close":
        this.#phase = "closed";
        this.#socket.end(answer, () => this.drop());
        return;
      case "drop":
        return this.#violation(outcome.reason);
      case "transmission":
        this.#socket.write(answer);
        return this.#startTransmission(outcome.session, outcome.rest);
    }
  }

  #startTransmission(session: Session, rest: Uint8Array): void {
    clearTimeout(this.#handshakeTimer);
    this.#phase = "transmission";
    this.#session = session;
    this.#rules = {
      sizeBytes: this.#device.sizeBytes,
      preferredBlockBytes: this.#device.preferredBlockBytes,
      structuredReplies: session.structuredReplies,
      metaContextCount: session.metaContexts.length,
    };
    this.#events.onTransmission();
    this.#decoder.push(rest);
    this.#pump();
  }

  /** Starts every request that is whole and has room; reads on only if none is kept waiting. */
  #pump(): void {
    try {
      while (this.#phase === "transmission") {
        const request = this.#decoder.next(this.#admit);
        if (request === undefined) break;
        this.#start(request);
      }
    } catch (error) {
      if (!(error instanceof NbdProtocolError)) throw error;
      return this.#violation(error.message);
    }
    if (this.#decoder.isWaiting) this.#socket.pause();
    else if (this.#isEnded) this.#onEnd();
    else this.#socket.resume();
  }

  readonly #admit = (request: Request): Admission => {
    if (request.type === command.disconnect) return "take";
    if (request.type === command.write && request.length > maxDrainedPayloadBytes) {
      throw new NbdProtocolError(`a write of ${request.length} bytes`);
    }
    const refusal = refusalOf(request, this.#rules);
    this.#refusal = request.isFirst
      ? refusal === undefined ? undefined : { kind: "failed", ...refusal }
      : this.#partFailure;
    const isRefused = this.#refusal !== undefined;
    this.#costBytes = isRefused ? requestCostBytes : costBytesOf(request, this.#rules);
    if (!this.#isAloneIfPart(request)) return "wait";
    if (this.#budget.tryAcquire(this.#costBytes)) return isRefused ? "drain" : "take";
    return this.#budget.requests === 0 ? "divide" : "wait";
  };

  /** Nothing comes between the parts of a reply. */
  #isAloneIfPart({ isFirst, isLast }: Request): boolean {
    return (isFirst && isLast) || this.#budget.requests === 0;
  }

  #start(request: Request): void {
    if (request.type === command.disconnect) {
      this.#phase = "disconnecting";
      return this.#closeIfIdle();
    }
    const costBytes = this.#costBytes;
    if (this.#refusal !== undefined) return this.#answer(request, this.#refusal, costBytes);
    this.#deviceRequests++;
    this.#deviceBytes += costBytes;
    execute(
      this.#device,
      request,
      this.#session,
      this.#gone.signal,
      (outcome) => {
        // The device has settled the request, so it does not look at the payload any more.
        this.#pool.give(request.payload);
        this.#deviceRequests--;
        this.#deviceBytes -= costBytes;
        this.#answer(request, outcome, costBytes);
      },
      this.#events.onError,
    );
  }

  #answer(request: Request, outcome: Outcome, costBytes: number): void {
    if (this.#phase === "closed") return this.#budget.release(1, costBytes);
    if (request.isFirst && request.isLast) return this.#reply(request, outcome, costBytes);
    if (outcome.kind === "failed") {
      const { structuredReplies } = this.#session;
      const isTold = outcome === this.#partFailure;
      if (
        request.type === command.read && !request.isFirst && !isTold && isOnePiece(request, structuredReplies)
      ) {
        return this.#violation(`a read of ${request.wholeLength} bytes failed half-way: ${outcome.message}`);
      }
      this.#partFailure = outcome;
    }
    if (request.isLast) {
      const whole = this.#partFailure ?? outcome;
      this.#partFailure = undefined;
      this.#reply(request, whole, costBytes);
    } else if (outcome.kind === "data") {
      this.#reply(request, outcome, costBytes);
    } else {
      this.#onTaken(1, costBytes);
    }
  }

  #reply(request: Request, outcome: Outcome, costBytes: number): void {
    if (this.#outboxRequests === 0) setImmediate(this.#flushOutbox);
    this.#outbox.push(...replyTo(request, this.#session.structuredReplies, outcome));
    this.#outboxRequests++;
    this.#outboxBytes += costBytes;
  }

  readonly #flushOutbox = (): void => {
    if (this.#phase === "closed") return;
    const parts = this.#outbox;
    const requests = this.#outboxRequests;
    const bytes = this.#outboxBytes;
    this.#outbox = [];
    this.#outboxRequests = 0;
    this.#outboxBytes = 0;
    const last = parts.length - 1;
    this.#socket.cork();
    for (let index = 0; index < last; index++) this.#socket.write(parts[index]);
    this.#socket.write(parts[last], (error) => {
      if (error) this.drop();
      else this.#onTaken(requests, bytes);
    });
    this.#socket.uncork();
  };

  /** The socket has taken replies: there is room for more requests. */
  #onTaken(requests: number, bytes: number): void {
    this.#budget.release(requests, bytes);
    if (this.#phase === "transmission" && this.#decoder.isWaiting) this.#pump();
    this.#closeIfIdle();
  }

  #closeIfIdle(): void {
    if (this.#phase === "disconnecting" && this.#budget.requests === 0) this.drop();
  }
}
