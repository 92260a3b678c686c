/**
 * What one connection may hold: a number of requests, and of bytes of request payloads being received or
 * executed and of replies the socket has not taken yet. A request is charged when its header is decoded and
 * released when the socket has taken its reply. Requests without data cost no bytes, only a place.
 */
export class Budget {
  readonly #maxRequests: number;
  readonly #maxBytes: number;
  #requests = 0;
  #bytes = 0;

  constructor(maxRequests: number, maxBytes: number) {
    this.#maxRequests = maxRequests;
    this.#maxBytes = maxBytes;
  }

  get requests(): number {
    return this.#requests;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Charges one request of `bytes`, or returns false. One request alone always fits. */
  tryAcquire(bytes: number): boolean {
    if (this.#requests >= this.#maxRequests) return false;
    if (this.#requests > 0 && this.#bytes + bytes > this.#maxBytes) return false;
    this.#requests++;
    this.#bytes += bytes;
    return true;
  }

  release(requests: number, bytes: number): void {
    this.#requests -= requests;
    this.#bytes -= bytes;
  }
}
