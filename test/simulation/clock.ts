/** Simulated time: nothing happens but by an event, and events of the same moment keep their order. */
import type { Clock } from "../../src/engine/clock.ts";

interface Event {
  readonly atMs: number;
  readonly number: number;
  callback: (() => void) | undefined;
}

export class SimClock implements Clock {
  #nowMs = 0;
  #count = 0;
  /** A binary heap: the parent of [n] is [(n - 1) >> 1], and is due no later. */
  readonly #heap: Event[] = [];

  now(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void): () => void {
    const event: Event = { atMs: this.#nowMs + Math.max(0, delayMs), number: this.#count++, callback };
    this.#push(event);
    return () => event.callback = undefined;
  }

  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.after(delayMs, resolve));
  }

  /** Goes to the next event, and on until all that follows from it has been done. False if there is none. */
  async step(): Promise<boolean> {
    for (;;) {
      const event = this.#pop();
      if (event === undefined) return false;
      if (event.callback === undefined) continue;
      this.#nowMs = event.atMs;
      event.callback();
      // Every promise that can go on has gone on by the next turn of the event loop.
      await new Promise<void>((resolve) => setImmediate(resolve));
      return true;
    }
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent])) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): Event | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (heap.length === 0 || last === undefined) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
      if (!isBefore(heap[child], last)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs !== b.atMs ? a.atMs < b.atMs : a.number < b.number;
}
