/** When to ask a silent target for a sign of life, and when to give it up. Pure. */

export class Keepalive {
  readonly #intervalMs: number;
  readonly #timeoutMs: number;
  #lastByteMs: number;
  #ping: { readonly tag: number; readonly sentMs: number } | undefined;

  constructor(intervalMs: number, timeoutMs: number, nowMs: number) {
    this.#intervalMs = intervalMs;
    this.#timeoutMs = timeoutMs;
    this.#lastByteMs = nowMs;
  }

  /** Any byte is a sign of life: a busy target may answer its pings late. */
  onBytes(nowMs: number): void {
    this.#lastByteMs = nowMs;
  }

  onPing(tag: number, nowMs: number): void {
    this.#ping = { tag, sentMs: nowMs };
  }

  /** False if there was no such ping. */
  onAnswer(tag: number): boolean {
    if (this.#ping?.tag !== tag) return false;
    this.#ping = undefined;
    return true;
  }

  check(nowMs: number): "ping" | "dead" | undefined {
    if (this.#ping === undefined) return nowMs - this.#lastByteMs >= this.#intervalMs ? "ping" : undefined;
    const sinceMs = Math.max(this.#ping.sentMs, this.#lastByteMs);
    return nowMs - sinceMs >= this.#timeoutMs ? "dead" : undefined;
  }
}
