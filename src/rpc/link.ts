/**
 * One end of a conversation over a byte stream: banner, frames, heartbeats, and the stream's back-pressure.
 * Client and server are built on it; neither touches the stream itself.
 *
 * A link never stops reading: beats and cancellations must get through whatever else is pending. What bounds
 * the memory instead is credit (`max-calls` in the banner: see client.ts and server.ts) and that nobody
 * produces more while `isBlocked`.
 */
import { Buffer } from "node:buffer";
import type { Duplex } from "node:stream";
import { clearInterval, clearTimeout, setInterval, setTimeout } from "node:timers";
import { messageOf } from "../lib/errors.ts";
import { RpcClosedError, RpcHandshakeError, RpcProtocolError, RpcSilentError } from "./errors.ts";
import {
  type Banner,
  defaultMaxFrameBytes,
  encodeBanner,
  encodeFrame,
  FrameDecoder,
  numericCapability,
  protocolVersion,
} from "./frames.ts";
import { decodeMessage, encodeMessage, type Message } from "./messages.ts";

export interface LinkOptions {
  /** Largest message accepted, in bytes; default 16 MiB. */
  readonly maxFrameBytes?: number;
  /** Calls in flight that the server accepts, and that the client sends at most; default 32. */
  readonly maxCalls?: number;
  /** How often a beat is sent; default 5000. */
  readonly heartbeatMs?: number;
  /** The peer is dead after so many beats (of the slower side) without a byte; default 4. */
  readonly silentBeats?: number;
  /** How long the other side may take to say its first line; default 30,000. */
  readonly handshakeTimeoutMs?: number;
  /** Words for the first line beside the protocol's own, such as `dlsm=1.0.0`; see `Banner`. */
  readonly capabilities?: readonly string[];
  /** Looks at the other side's first line; the conversation does not begin if it gives an error. */
  refuse?(banner: Banner): RpcHandshakeError | undefined;
}

export const defaultMaxCalls = 32;
/** Timers count in 31 bits; longer deadlines are as good as none. */
export const maxTimerMs = 2 ** 31 - 1;

export interface LinkEvents {
  /** The other side's first line has come and is of the same version. */
  onReady(banner: Banner): void;
  onMessage(message: Message): void;
  /** The stream takes data again after `isBlocked`. */
  onDrain(): void;
  /** Called once. `error` is undefined if either side ended it in the regular way. */
  onClose(error: Error | undefined): void;
}

/** Beats, cancellations and short errors must fit. */
const minFrameBytes = 1024;
/** Who promises a beat more rarely is not believed: a peer that is gone must be noticed some day. */
const maxHeartbeatMs = 60_000;

/** How long a closing link may take to hand over what was already said. */
const closeGraceMs = 1000;

export class Link {
  readonly #stream: Duplex;
  readonly #events: LinkEvents;
  readonly #refuse: LinkOptions["refuse"];
  readonly #decoder: FrameDecoder;
  readonly #heartbeatMs: number;
  #silentBeats: number;
  readonly #handshakeTimer: ReturnType<typeof setTimeout>;
  readonly #beatTimer: ReturnType<typeof setInterval>;
  #beatsSinceHeard = 0;
  #peerMaxFrameBytes = defaultMaxFrameBytes;
  #isReady = false;
  #isBlocked = false;
  #isClosed = false;

  constructor(stream: Duplex, events: LinkEvents, options: LinkOptions = {}) {
    const {
      maxFrameBytes = defaultMaxFrameBytes,
      maxCalls = defaultMaxCalls,
      heartbeatMs = 5000,
      silentBeats = 4,
      handshakeTimeoutMs = 30_000,
    } = options;
    this.#stream = stream;
    this.#events = events;
    this.#refuse = options.refuse;
    this.#heartbeatMs = heartbeatMs;
    this.#silentBeats = silentBeats;
    this.#decoder = new FrameDecoder({
      onBanner: (banner) => this.#greeted(banner),
      onFrame: (payload) => this.#received(payload),
    }, maxFrameBytes);
    this.#handshakeTimer = setTimeout(() => this.#handshakeLate(handshakeTimeoutMs), handshakeTimeoutMs);
    this.#beatTimer = setInterval(() => this.#beat(), heartbeatMs);
    // The stream keeps the process alive as long as there is somebody to hear.
    this.#beatTimer.unref();

    stream.on("data", (chunk: Uint8Array) => this.#heard(chunk));
    stream.on("drain", () => this.#drained());
    stream.on("end", () => this.#ended());
    stream.on("close", () => this.#ended());
    stream.on("error", (error: Error) => this.#broken(error));
    const capabilities = [
      `max-frame=${maxFrameBytes}`,
      `max-calls=${maxCalls}`,
      `beat-ms=${heartbeatMs}`,
      ...(options.capabilities ?? []),
    ];
    this.#write(encodeBanner({ version: protocolVersion, capabilities }));
  }

  /** Whether the stream wants no more for now; `onDrain` follows. What is sent all the same is buffered. */
  get isBlocked(): boolean {
    return this.#isBlocked;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /**
   * Throws TypeError (not plain data) or RangeError (larger than the other side accepts), and has then sent
   * nothing. Does nothing after the end.
   */
  send(message: Message): void {
    if (this.#isClosed) return;
    this.#write(encodeFrame(encodeMessage(message), this.#peerMaxFrameBytes));
  }

  /** Ends the conversation: what was sent still goes out unless `error` says that the link is broken. */
  close(error?: Error): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#handshakeTimer);
    clearInterval(this.#beatTimer);
    const isHandshake = error instanceof RpcHandshakeError;
    if (error === undefined || isHandshake) {
      // The other side must hear our first line to understand why we leave.
      setTimeout(() => this.#stream.destroy(), closeGraceMs).unref();
      this.#stream.end(() => this.#stream.destroy());
    } else {
      this.#stream.destroy();
    }
    this.#events.onClose(error);
  }

  #write(bytes: Uint8Array): void {
    // A Buffer view: streams copy other Uint8Arrays.
    const canTakeMore = this.#stream.write(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    if (!canTakeMore) this.#isBlocked = true;
  }

  #drained(): void {
    this.#isBlocked = false;
    if (!this.#isClosed) this.#events.onDrain();
  }

  #heard(chunk: Uint8Array): void {
    if (this.#isClosed) return;
    this.#beatsSinceHeard = 0;
    try {
      this.#decoder.push(chunk);
    } catch (error) {
      if (!(error instanceof RpcProtocolError)) throw error;
      const isBeforeGreeting = !this.#isReady;
      this.close(isBeforeGreeting ? new RpcHandshakeError(error.message, { hint: error.hint }) : error);
    }
  }

  #greeted(banner: Banner): void {
    if (banner.version !== protocolVersion) {
      return this.close(
        new RpcHandshakeError(
          `the dlsm on the other side speaks protocol version ${banner.version}, this one ${protocolVersion}`,
          { hint: "install the same version of dlsm on both hosts" },
        ),
      );
    }
    const peerMaxFrameBytes = numericCapability(banner, "max-frame") ?? defaultMaxFrameBytes;
    const refusal = peerMaxFrameBytes < minFrameBytes
      ? new RpcHandshakeError(`the other side takes messages of ${peerMaxFrameBytes} bytes at most`)
      : this.#refuse?.(banner);
    if (refusal !== undefined) return this.close(refusal);
    clearTimeout(this.#handshakeTimer);
    this.#isReady = true;
    this.#peerMaxFrameBytes = peerMaxFrameBytes;
    // A peer that beats more rarely than we do is not dead earlier.
    const promisedMs = numericCapability(banner, "beat-ms") ?? this.#heartbeatMs;
    const peerHeartbeatMs = Math.min(promisedMs, maxHeartbeatMs);
    this.#silentBeats *= Math.max(1, Math.ceil(peerHeartbeatMs / this.#heartbeatMs));
    this.#events.onReady(banner);
  }

  #received(payload: Uint8Array): void {
    // One chunk may hold frames beyond the one that ended the conversation.
    if (this.#isClosed) return;
    const message = decodeMessage(payload);
    if (message.type !== "beat") this.#events.onMessage(message);
  }

  #beat(): void {
    // Beats are counted, not a clock read: a process that was stopped for a while hears its peer first.
    this.#beatsSinceHeard++;
    if (this.#isReady && this.#beatsSinceHeard > this.#silentBeats) {
      return this.close(new RpcClosedError("the other side went silent", { hint: lostHint }));
    }
    // What is still waiting to go out will show that we live.
    if (this.#isReady && !this.#isBlocked) this.send({ type: "beat" });
  }

  #handshakeLate(timeoutMs: number): void {
    this.close(
      new RpcSilentError(`the other side said nothing for ${timeoutMs} ms`, {
        hint: "check that dlsm can be run there, and that nothing asks for a password",
      }),
    );
  }

  #ended(): void {
    if (this.#isReady && this.#decoder.isBetweenFrames) return this.close();
    if (this.#isReady) return this.#broken(new Error("it ended inside a message"));
    const said = this.#decoder.partialBanner;
    this.close(
      new RpcHandshakeError(
        said === '""' ? "the other side ended without a word" : `the other side ended after saying ${said}`,
        { hint: "check that dlsm is installed there and can be run by that user" },
      ),
    );
  }

  #broken(cause: Error): void {
    const ErrorClass = this.#isReady ? RpcClosedError : RpcHandshakeError;
    this.close(new ErrorClass(`the connection broke: ${messageOf(cause)}`, { hint: lostHint, cause }));
  }
}

const lostHint = "check the other host and the network between, then use dlsm resume";
