/**
 * A network in memory: bytes arrive in their order, in pieces of any size after any delay, and end anywhere.
 * The initiator's end keeps the contract of `Transport`, and makes use of all that it allows: a piece is
 * overwritten as soon as the initiator has seen it.
 */
import type { Connect, Transport, TransportHandlers } from "../../../src/iscsi-initiator/mod.ts";
import type { PeerSocket } from "../../iscsi-initiator/target-peer.ts";
import type { World } from "./world.ts";

/** Largest pieces that a connection's bytes come in; each connection has one of them. */
const pieceBounds = [3_000, 20_000, 300_000];
/** Now and then a piece is no larger than this, so that PDUs are cut anywhere. */
const tinyBytes = 60;

/** One direction of a connection. */
class Pipe {
  readonly #world: World;
  readonly #pieceBytes: number;
  readonly #deliver: (piece: Uint8Array) => void;
  #waiting: Uint8Array[] = [];
  waitingBytes = 0;
  #isPumping = false;
  #isStopped = false;
  stalledUntilMs = 0;

  constructor(world: World, pieceBytes: number, deliver: (piece: Uint8Array) => void) {
    this.#world = world;
    this.#pieceBytes = pieceBytes;
    this.#deliver = deliver;
  }

  write(bytes: Uint8Array): void {
    if (this.#isStopped || bytes.length === 0) return;
    this.#waiting.push(Uint8Array.from(bytes));
    this.waitingBytes += bytes.length;
    this.#pump();
  }

  stop(): void {
    this.#isStopped = true;
    this.#waiting = [];
    this.waitingBytes = 0;
  }

  #pump(): void {
    if (this.#isPumping || this.#isStopped || this.waitingBytes === 0) return;
    this.#isPumping = true;
    const { nowMs } = this.#world;
    const delayMs = Math.max(this.stalledUntilMs - nowMs, this.#world.skewed(3));
    if (delayMs === Infinity) return;
    this.#world.clock.after(delayMs, () => {
      this.#isPumping = false;
      if (this.#isStopped) return;
      if (this.#world.nowMs >= this.stalledUntilMs) this.#deliver(this.#take());
      this.#pump();
    });
  }

  /** A piece from the head of what waits. */
  #take(): Uint8Array {
    const { random } = this.#world;
    const wantedBytes = 1 + random.below(random.chance(0.15) ? tinyBytes : this.#pieceBytes);
    const all = this.#waiting.length === 1 ? this.#waiting[0] : Buffer.concat(this.#waiting);
    const piece = all.slice(0, wantedBytes);
    this.#waiting = piece.length < all.length ? [all.subarray(piece.length)] : [];
    this.waitingBytes -= piece.length;
    return piece;
  }
}

/** One connection, as the target's end of it. */
export class SimSocket implements PeerSocket {
  readonly #world: World;
  readonly #handlers: TransportHandlers;
  readonly #toInitiator: Pipe;
  readonly #toTarget: Pipe;
  /** The connection ends when this many bytes have reached the initiator. */
  cutAfterBytes = Infinity;
  #deliveredBytes = 0;
  destroyed = false;
  onData: (piece: Uint8Array) => void = () => {};
  onClosed: () => void = () => {};

  constructor(world: World, handlers: TransportHandlers) {
    this.#world = world;
    this.#handlers = handlers;
    const pieceBytes = pieceBounds[world.random.below(pieceBounds.length)];
    this.#toInitiator = new Pipe(world, pieceBytes, (piece) => this.#deliver(piece));
    this.#toTarget = new Pipe(world, pieceBytes * 4, (piece) => this.onData(piece));
  }

  /** Nothing arrives at the initiator any more until then; `Infinity`: ever again. */
  stall(untilMs: number): void {
    this.#toInitiator.stalledUntilMs = untilMs;
  }

  connect(): void {
    if (!this.destroyed) this.#handlers.onConnect();
  }

  write(bytes: Uint8Array): void {
    if (!this.destroyed) this.#toInitiator.write(bytes);
  }

  destroy(): void {
    this.close(undefined);
  }

  /** From the target's side, or the network's. */
  close(error: Error | undefined): void {
    if (this.destroyed) return;
    this.#end();
    this.#handlers.onClose(error);
  }

  /** The initiator's end. */
  get transport(): Transport {
    const pipe = this.#toTarget;
    return {
      write: (bytes) => pipe.write(bytes),
      get bufferedBytes() {
        return pipe.waitingBytes;
      },
      destroy: () => this.#end(),
    };
  }

  #deliver(piece: Uint8Array): void {
    const allowedBytes = this.cutAfterBytes - this.#deliveredBytes;
    const seen = piece.subarray(0, Math.min(piece.length, allowedBytes));
    this.#deliveredBytes += seen.length;
    if (seen.length > 0) this.#handlers.onData(seen);
    seen.fill(0xdd);
    if (this.#deliveredBytes < this.cutAfterBytes) return;
    this.#world.reach("cut");
    this.close(this.#world.random.chance(0.5) ? new Error("read ECONNRESET") : undefined);
  }

  #end(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    this.#toInitiator.stop();
    this.#toTarget.stop();
    this.onClosed();
  }
}

/** The `connect` of a session: each connection is given to `accept`, or does not come about. */
export function connectIn(world: World, accept: (socket: SimSocket) => void): Connect {
  return (_, handlers) => {
    const socket = new SimSocket(world, handlers);
    const delayMs = 0.1 + world.skewed(20);
    if (world.strikes("refused connection", 0.08)) {
      world.clock.after(delayMs, () => socket.close(new Error("connect ECONNREFUSED")));
    } else if (!world.strikes("connection that never comes about", 0.02)) {
      world.clock.after(delayMs, () => {
        if (socket.destroyed) return;
        accept(socket);
        socket.connect();
      });
    }
    return socket.transport;
  };
}
