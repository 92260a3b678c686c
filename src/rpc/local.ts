/** Conversations without a socket: within one process, and over a pair of pipes. */
import { Buffer } from "node:buffer";
import { Duplex, type Readable, type Writable } from "node:stream";
import { type ClientOptions, RpcClient } from "./client.ts";
import type { LinkOptions } from "./link.ts";
import { type Handlers, serve } from "./server.ts";

/** A client whose server is in the same process: the same frames, limits and errors as over a wire. */
export function localPair(handlers: Handlers, options?: ClientOptions & LinkOptions): Promise<RpcClient> {
  const [here, there] = memoryPair();
  serve(there, handlers, options);
  return RpcClient.connect(here, options);
}

/** Two streams: what is written to one is read from the other. The end of one is the end of both. */
export function memoryPair(): [Duplex, Duplex] {
  const left = new MemoryEnd();
  const right = new MemoryEnd();
  left.peer = right;
  right.peer = left;
  return [left, right];
}

class MemoryEnd extends Duplex {
  peer: MemoryEnd | undefined;
  /** Continues the writer on the other side once the reader here wants more. */
  #onWanted: (() => void) | undefined;

  override _read(): void {
    const onWanted = this.#onWanted;
    this.#onWanted = undefined;
    onWanted?.();
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error) => void): void {
    const peer = this.peer!;
    if (peer.destroyed) return done(new Error("the other end is gone"));
    if (peer.push(chunk)) done();
    else peer.#onWanted = done;
  }

  override _final(done: () => void): void {
    this.peer!.push(null);
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const peer = this.peer!;
    if (!peer.readableEnded && !peer.destroyed) peer.push(null);
    this._read();
    done(error);
  }
}

/**
 * One stream out of two: a child's stdout and stdin, or this process's stdin and stdout. Both belong to it
 * from here on and end with it. Where the other side stops reading, what it said before is still read: the
 * error comes after it.
 */
export function joinStreams(readable: Readable, writable: Writable): Duplex {
  const afterLastWords = (work: () => void) => readable.closed ? work() : readable.once("close", work);
  const joined = new Duplex({
    read: () => void readable.resume(),
    write: (chunk, _encoding, done) => {
      writable.write(chunk, (error) => error ? afterLastWords(() => done(error)) : done());
    },
    final: (done) => void writable.end(() => done()),
    destroy: (error, done) => {
      readable.destroy();
      writable.destroy();
      done(error);
    },
  });
  readable.on("data", (chunk: Buffer) => {
    if (!joined.push(chunk)) readable.pause();
  });
  readable.on("end", () => joined.push(null));
  // Closed without an end: as when a process dies.
  readable.on("close", () => readable.readableEnded || joined.destroy());
  readable.on("error", (error: Error) => joined.destroy(error));
  writable.on("error", (error: Error) => afterLastWords(() => joined.destroy(error)));
  return joined;
}
