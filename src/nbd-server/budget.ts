/**
 * What clients may make the server hold: payloads being received or executed, and replies that a socket has
 * not taken yet. A request is charged when its header is decoded and released when the socket has taken its
 * reply, or, if its client is gone by then, when the device has settled it.
 *
 *     total  = places x reserve  +  common part        (half and half)
 *
 * Each connection has its reserve, whatever the others do. Of the common part it takes at most as much as it
 * leaves free (dynamic thresholds: one greedy client gets a half, two a third each, and something is always
 * left). What does not fit waits for requests of the same connection only, and what does not fit even alone is
 * executed in parts that fit into the reserve: so nobody ever waits for another client, who might never read,
 * never send, or wait for the hand-off himself.
 *
 * What a client that is gone leaves in the device counts as common until it is settled. A new client is taken
 * only while there is a reserve for it.
 *
 * Pure.
 */
export interface BudgetLimits {
  /** Of all connections together. */
  readonly totalBytes: number;
  readonly maxConnections: number;
  /** Of one connection. */
  readonly maxBytes: number;
  /** Of one connection. */
  readonly maxRequests: number;
}

export class ServerBudget {
  readonly limits: BudgetLimits;
  /** What each connection may hold in any case. */
  readonly reserveBytes: number;
  readonly #commonBytes: number;
  #commonUsedBytes = 0;
  #members = 0;

  constructor(limits: BudgetLimits) {
    this.limits = limits;
    this.reserveBytes = Math.floor(limits.totalBytes / 2 / limits.maxConnections);
    this.#commonBytes = limits.totalBytes - this.reserveBytes * limits.maxConnections;
  }

  /** The most that is held at this moment, were every reserve in use: never more than the total. */
  get committedBytes(): number {
    return this.#members * this.reserveBytes + this.#commonUsedBytes;
  }

  /** At most half of the places are taken, and half of the bytes. */
  get isHalfFree(): boolean {
    const { maxConnections, totalBytes } = this.limits;
    return this.#members <= maxConnections / 2 && this.committedBytes <= totalBytes / 2;
  }

  /** A new connection's budget; undefined if there is no place for one. */
  join(): Budget | undefined {
    const { maxConnections, totalBytes } = this.limits;
    if (this.#members >= maxConnections || this.committedBytes + this.reserveBytes > totalBytes) {
      return undefined;
    }
    this.#members++;
    return new Budget(this, {
      mayTake: (ownBytes, moreBytes) => ownBytes <= this.#commonBytes - this.#commonUsedBytes - moreBytes,
      take: (bytes) => this.#commonUsedBytes += bytes,
      leave: () => this.#members--,
    });
  }
}

/** What a connection's budget does to the common part. */
interface CommonPart {
  /** May `moreBytes` be taken, so that a connection has `ownBytes` of it then? */
  mayTake(ownBytes: number, moreBytes: number): boolean;
  /** Negative: gives back. */
  take(bytes: number): void;
  leave(): void;
}

/** One connection's. */
export class Budget {
  readonly #server: ServerBudget;
  readonly #common: CommonPart;
  #isMember = true;
  #requests = 0;
  #bytes = 0;

  constructor(server: ServerBudget, common: CommonPart) {
    this.#server = server;
    this.#common = common;
  }

  get requests(): number {
    return this.#requests;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Charges one request of `bytes`, or returns false. */
  tryAcquire(bytes: number): boolean {
    const { maxRequests, maxBytes } = this.#server.limits;
    const after = this.#bytes + bytes;
    if (this.#requests >= maxRequests) return false;
    if (after > this.#server.reserveBytes) {
      const share = this.#commonShareOf(after);
      const more = share - this.#commonShareOf(this.#bytes);
      if (after > maxBytes || !this.#common.mayTake(share, more)) return false;
    }
    this.#requests++;
    this.#hold(after);
    return true;
  }

  release(requests: number, bytes: number): void {
    this.#requests -= requests;
    this.#hold(this.#bytes - bytes);
  }

  /** The client is gone, and its place is free; of what it was charged, so much is still in the device. */
  leave(requestsLeft: number, bytesLeft: number): void {
    this.release(this.#requests - requestsLeft, this.#bytes - bytesLeft);
    this.#common.take(this.#bytes - this.#commonShareOf(this.#bytes));
    this.#isMember = false;
    this.#common.leave();
  }

  #hold(bytes: number): void {
    this.#common.take(this.#commonShareOf(bytes) - this.#commonShareOf(this.#bytes));
    this.#bytes = bytes;
  }

  #commonShareOf(bytes: number): number {
    return this.#isMember ? Math.max(0, bytes - this.#server.reserveBytes) : bytes;
  }
}
