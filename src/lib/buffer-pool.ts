/**
 * Large buffers, used again: fresh memory for each request would cost the system a page fault every 4 KiB, and
 * the collector its time. Pure.
 *
 * Buffers have the size of a power of two from 64 KiB to 1 MiB; anything else is made as it is asked for. Who
 * gives a buffer back must be the last one to look at it.
 */
const smallestBytes = 64 * 1024;
const largestBytes = 1024 * 1024;

/** At least what a buffer of `lengthBytes` takes, whether it comes from a pool or is a part of a socket's chunk. */
export function pooledBytesOf(lengthBytes: number): number {
  return lengthBytes > largestBytes ? lengthBytes : sizeOf(Math.max(lengthBytes, smallestBytes));
}

function sizeOf(lengthBytes: number): number {
  return 2 ** Math.ceil(Math.log2(lengthBytes));
}

export class BufferPool {
  readonly #mostFreeBytes: number;
  readonly #free = new Map<number, ArrayBuffer[]>();
  /** What was made here: other people's memory must never come in. */
  readonly #own = new WeakSet<ArrayBufferLike>();
  #freeBytes = 0;

  /** @param mostFreeBytes kept for later at most */
  constructor(mostFreeBytes: number) {
    this.#mostFreeBytes = mostFreeBytes;
  }

  /** `lengthBytes` with any content. */
  take(lengthBytes: number): Uint8Array {
    if (lengthBytes < smallestBytes || lengthBytes > largestBytes) return Buffer.allocUnsafe(lengthBytes);
    const size = sizeOf(lengthBytes);
    let buffer = this.#free.get(size)?.pop();
    if (buffer === undefined) {
      buffer = new ArrayBuffer(size);
      this.#own.add(buffer);
    } else {
      this.#freeBytes -= size;
    }
    return new Uint8Array(buffer, 0, lengthBytes);
  }

  /** Nobody looks at it any more. Nothing happens with memory that did not come from here. */
  give({ buffer }: Uint8Array): void {
    const size = buffer.byteLength;
    if (!this.#own.has(buffer) || this.#freeBytes + size > this.#mostFreeBytes) return;
    const free = this.#free.get(size);
    if (free === undefined) this.#free.set(size, [buffer as ArrayBuffer]);
    else free.push(buffer as ArrayBuffer);
    this.#freeBytes += size;
  }
}
