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
 */
import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import { Budget } from "./budget.ts";
import type { BlockDevice } from "./device.ts";
import { costBytesOf, execute } from "./execute.ts";
import { type ExportDescription, Handshake, type Session } from "./handshake.ts";
import { command, maxDrainedPayloadBytes, NbdProtocolError } from "./protocol.ts";
import { errorReply } from "./replies.ts";
import { type Admission, type Request, RequestDecoder } from "./request-decoder.ts";
import { BufferPool } from "../lib/buffer-pool.ts";
import { type Refusal, refusalOf, type RequestRules } from "./validation.ts";

export interface ConnectionLimits {
  readonly maxRequests: number;
  readonly maxBytes: number;
  readonly handshakeTimeoutMs: number;
}

/** Of payload buffers that wait to be used again. */
const pooledBytes = 8 * 1024 * 1024;

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
  readonly #pool = new BufferPool(pooledBytes);
  readonly #decoder = new RequestDecoder(this.#pool);
  readonly #budget: Budget;
  /** Aborted when the client is gone: what waits in the device is not begun any more. */
  readonly #gone = new AbortController();
  #phase: "handshake" | "transmission" | "disconnecting" | "closed" = "handshake";
  #session: Session = { structuredReplies: false, metaContexts: [] };
  #rules: RequestRules = { sizeBytes: 0, structuredReplies: false, metaContextCount: 0 };
  /** Of the request that the decoder is receiving: why it is refused, and what it was charged. */
  #refusal: Refusal | undefined;
  #costBytes = 0;
  /** Replies of this turn, with what they release once the socket has taken them. */
  #outbox: Uint8Array[] = [];
  #outboxRequests = 0;
  #outboxBytes = 0;

  constructor(
    socket: Socket,
    device: BlockDevice,
    exportDescription: ExportDescription,
    limits: ConnectionLimits,
    events: ConnectionEvents,
  ) {
    this.#socket = socket;
    this.#device = device;
    this.#events = events;
    this.#budget = new Budget(limits.maxRequests, limits.maxBytes);
    this.#handshake = new Handshake(exportDescription);
    this.#handshakeTimer = setTimeout(
      () => this.#violation("no handshake in time"),
      limits.handshakeTimeoutMs,
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

  /** End of file without NBD_CMD_DISC: the client is gone. After one, it may still read its replies. */
  #onEnd(): void {
    this.#gone.abort();
    if (this.#phase !== "disconnecting") this.drop();
  }

  #onClose(): void {
    clearTimeout(this.#handshakeTimer);
    this.#phase = "closed";
    this.#gone.abort();
    this.#outbox = [];
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
    else this.#socket.resume();
  }

  readonly #admit = (request: Request): Admission => {
    if (request.type === command.disconnect) return "take";
    if (request.type === command.write && request.length > maxDrainedPayloadBytes) {
      throw new NbdProtocolError(`a write of ${request.length} bytes`);
    }
    this.#refusal = refusalOf(request, this.#rules);
    this.#costBytes = this.#refusal === undefined ? costBytesOf(request, this.#session) : 0;
    if (!this.#budget.tryAcquire(this.#costBytes)) return "wait";
    return this.#refusal === undefined ? "take" : "drain";
  };

  #start(request: Request): void {
    if (request.type === command.disconnect) {
      this.#phase = "disconnecting";
      return this.#closeIfIdle();
    }
    const costBytes = this.#costBytes;
    if (this.#refusal !== undefined) {
      const { error, message } = this.#refusal;
      return this.#send(errorReply(request, this.#session.structuredReplies, error, message), [], costBytes);
    }
    execute(
      this.#device,
      request,
      this.#session,
      this.#gone.signal,
      (header, pieces) => {
        // The device has settled the request, so it does not look at the payload any more.
        this.#pool.give(request.payload);
        this.#send(header, pieces, costBytes);
      },
      this.#events.onError,
    );
  }

  #send(header: Uint8Array, pieces: readonly Uint8Array[], costBytes: number): void {
    if (this.#phase === "closed") return;
    if (this.#outboxRequests === 0) setImmediate(this.#flushOutbox);
    this.#outbox.push(header);
    for (const piece of pieces) this.#outbox.push(piece);
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
