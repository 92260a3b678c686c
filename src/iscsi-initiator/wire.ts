/**
 * PDUs over one transport: sending in batches, decoding, and the sequence numbers of both directions. What
 * the PDUs mean is the connection's business.
 */
import { PduDecoder, type PduSink } from "./decoder.ts";
import { IscsiError, ProtocolError } from "./errors.ts";
import { type Digests, type Header, noDigests, type Numbers } from "./pdu.ts";
import { CommandWindow, serialNext } from "./sequence.ts";
import type { Connect, Transport } from "./transport.ts";

export interface WireHandlers extends PduSink {
  onConnect(): void;
  /** Bytes came; called before they are decoded. */
  onBytes(): void;
  /** All PDUs of a chunk were handled. */
  onChunkEnd(): void;
  /** The stream cannot be followed any more. */
  onFailure(error: IscsiError): void;
  /** The transport ended; no error: the peer closed in order. */
  onClose(error: Error | undefined): void;
}

/** A peer that makes this side write, and does not read, is given up. */
const maxUnsentBytes = 1 << 20;

export class Wire {
  readonly window: CommandWindow;
  digests: Digests = noDigests;
  readonly #handlers: WireHandlers;
  readonly #transport: Transport;
  readonly #decoder: PduDecoder;
  #isClosed = false;
  #outgoing: Uint8Array[] = [];
  #outgoingBytes = 0;
  /** Undefined until the first status; the target chooses where to begin. */
  #expStatSN: number | undefined;

  constructor(
    connect: Connect,
    address: { readonly host: string; readonly port: number },
    initialCmdSN: number,
    maxDataBytes: number,
    handlers: WireHandlers,
  ) {
    this.#handlers = handlers;
    this.window = new CommandWindow(initialCmdSN);
    this.#decoder = new PduDecoder(handlers, maxDataBytes);
    this.#transport = connect(address, {
      onConnect: () => handlers.onConnect(),
      onData: (chunk) => this.#onData(chunk),
      onClose: (error) => handlers.onClose(error),
    });
  }

  /** New terms for the PDUs after the current one, in both directions. */
  configure(digests: Digests, maxDataBytes: number): void {
    this.digests = digests;
    this.#decoder.configure(digests, maxDataBytes);
  }

  /** For requests that use up no CmdSN. */
  get numbers(): Numbers {
    return { cmdSN: this.window.nextCmdSN, expStatSN: this.#expStatSN ?? 0 };
  }

  /** For a command: takes the next CmdSN. */
  takeNumbers(): Numbers {
    return { cmdSN: this.window.take(), expStatSN: this.#expStatSN ?? 0 };
  }

  /** All PDUs of one turn of the event loop leave in one write. */
  send(pdu: Uint8Array): void {
    this.#outgoingBytes += pdu.length;
    if (this.#outgoingBytes + this.#transport.bufferedBytes > maxUnsentBytes) {
      return this.#handlers.onFailure(new ProtocolError("the target does not read"));
    }
    this.#outgoing.push(pdu);
    if (this.#outgoing.length === 1) process.nextTick(() => this.#flush());
  }

  /** Statuses come in the order of StatSN; a gap is one that was lost (RFC 7143 §7.1.4.3). */
  takeStatSN(header: Header): void {
    if (this.#expStatSN !== undefined && header.statSN !== this.#expStatSN) {
      throw new ProtocolError(`the target sent StatSN ${header.statSN} instead of ${this.#expStatSN}`);
    }
    this.#expStatSN = serialNext(header.statSN);
  }

  /** The rest of the data segment that is arriving is stored nowhere. */
  skipData(): void {
    this.#decoder.skipData();
  }

  /** At once: nothing is stored, sent or called any more. */
  close(): void {
    this.#isClosed = true;
    this.#decoder.stop();
    this.#transport.destroy();
  }

  #onData(chunk: Uint8Array): void {
    if (this.#isClosed) return;
    this.#handlers.onBytes();
    try {
      this.#decoder.push(chunk);
    } catch (error) {
      if (!(error instanceof IscsiError)) throw error;
      return this.#handlers.onFailure(error);
    }
    if (!this.#isClosed) this.#handlers.onChunkEnd();
  }

  #flush(): void {
    const pdus = this.#outgoing;
    this.#outgoing = [];
    this.#outgoingBytes = 0;
    if (this.#isClosed) return;
    this.#transport.write(pdus.length === 1 ? pdus[0] : Buffer.concat(pdus));
  }
}
