/** Bytes and numbers that look random and are the same for the same seed (AES-256 in counter mode). Pure. */
import { type Cipheriv, createCipheriv, createHash } from "node:crypto";

export class Random {
  readonly #stream: Cipheriv;

  constructor(seed: string) {
    const key = createHash("sha256").update(seed).digest();
    this.#stream = createCipheriv("aes-256-ctr", key, Buffer.alloc(16));
  }

  bytes(length: number): Buffer {
    return this.#stream.update(Buffer.alloc(length));
  }

  /** An integer from 0 to `limit` - 1; `limit` is at most 2^48. */
  below(limit: number): number {
    return Math.floor(this.bytes(6).readUIntLE(0, 6) / 2 ** 48 * limit);
  }

  /** One of `list`, which is not empty. */
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }
}
