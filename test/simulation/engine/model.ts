/**
 * What a disk may hold: for every grain (128 bytes) of the volume the writes whose content it may have now, and
 * those whose content it may have after a power failure.
 *
 * A write X is out of the question for a reader once an acknowledged write Y of the same grain has followed it
 * (Y began after X had ended, and Y ended before the read began). For a power failure Y counts only once it was
 * flushed. Writes that overlap in time may take effect in either order; one that failed, or whose engine died
 * before it answered, may have taken effect or not.
 *
 * A grain's content names the write and the grain, so that what comes from a wrong place is seen as well.
 */

export const grainBytes = 128;
const grainWords = grainBytes / 4;

/** An order of all that happens. */
type Tick = number;

export interface Write {
  /** 0: zeroes. */
  readonly content: number;
  readonly name: string;
  readonly begin: Tick;
  /** Infinity while it is under way. */
  end: Tick;
  isAcknowledged: boolean;
  isFlushed: boolean;
  /** The engine answered with an error. */
  isRefused: boolean;
  /** A read saw its content: made up then, as if it had been written during the read. */
  readonly isObservation: boolean;
  readonly from: number;
  readonly to: number;
}

export interface Pending {
  readonly begin: Tick;
}

export class Wrong extends Error {}

export class Model {
  readonly #grains: Write[][];
  readonly #reads = new Set<Pending>();
  #tick = 1;
  #contents = 1;
  readonly #names = new Map<number, string>([[0, "zeroes"]]);

  constructor(sizeBytes: number) {
    this.#grains = Array.from({ length: sizeBytes / grainBytes }, () => []);
  }

  get tick(): Tick {
    return this.#tick;
  }

  /** The bytes of a new content, for grains [from, to). */
  static bytesOf(content: number, from: number, to: number): Uint8Array {
    const words = new Uint32Array((to - from) * grainWords);
    for (let grain = from; grain < to; grain++) {
      words.fill(wordOf(content, grain), (grain - from) * grainWords, (grain - from + 1) * grainWords);
    }
    return new Uint8Array(words.buffer);
  }

  newContent(name: string): number {
    const content = this.#contents++;
    this.#names.set(content, name);
    return content;
  }

  /** A write of grains [from, to) begins. */
  begin(name: string, content: number, from: number, to: number): Write {
    const write = this.#write(name, content, from, to);
    for (let grain = from; grain < to; grain++) this.#grains[grain].push(write);
    return write;
  }

  /** A write that is done at once, before anybody else does anything. */
  done(name: string, content: number, from: number, to: number): void {
    const write = this.begin(name, content, from, to);
    write.isFlushed = true;
    this.end(write, true);
  }

  end(write: Write, isAcknowledged: boolean): void {
    write.end = this.#tick++;
    write.isAcknowledged = isAcknowledged;
    write.isRefused = !isAcknowledged;
    for (let grain = write.from; grain < write.to; grain++) this.#prune(grain);
  }

  /** It was refused before anything was done. */
  undo(write: Write): void {
    for (let grain = write.from; grain < write.to; grain++) {
      this.#grains[grain] = this.#grains[grain].filter((other) => other !== write);
    }
  }

  beginFlush(): Pending {
    return { begin: this.#tick++ };
  }

  /** Everything that was acknowledged before the flush began is durable. */
  endFlush({ begin }: Pending): void {
    for (const writes of this.#grains) {
      for (const write of writes) if (write.isAcknowledged && write.end < begin) write.isFlushed = true;
    }
  }

  beginRead(): Pending {
    const read = { begin: this.#tick++ };
    this.#reads.add(read);
    return read;
  }

  /** Throws Wrong if the bytes of grains from `from` on are none that the read may return. */
  endRead(read: Pending, from: number, bytes: Uint8Array): void {
    this.#reads.delete(read);
    const words = new Uint32Array(bytes.slice().buffer);
    for (let at = 0; at < words.length; at += grainWords) {
      const grain = from + at / grainWords;
      const word = words[at];
      for (let next = at + 1; next < at + grainWords; next++) {
        if (words[next] !== word) throw new Wrong(`grain ${grain} is torn`);
      }
      this.#checkGrain(read, grain, word);
    }
    this.#tick++;
  }

  forgetRead(read: Pending): void {
    this.#reads.delete(read);
  }

  /** The engine died: what it had not answered may have happened; what it had refused may go, although it was read. */
  engineDied(): void {
    this.#reads.clear();
    const now = this.#tick++;
    this.#grains.forEach((writes, grain) => {
      for (const write of writes) if (write.end === Infinity) write.end = now;
      this.#grains[grain] = writes.filter((write) =>
        !(write.isObservation && write.isRefused && !write.isFlushed)
      );
    });
  }

  /** What was not flushed may be gone, or not. */
  powerFailed(): void {
    this.engineDied();
    const now = this.#tick++;
    this.#grains.forEach((writes, grain) => {
      const left = writes.filter((write) =>
        !(write.isObservation && !write.isFlushed) &&
        !writes.some((later) => later.isAcknowledged && later.isFlushed && later.begin > write.end)
      );
      this.#grains[grain] = left.map((write) => ({
        ...write,
        begin: 0,
        end: now,
        isAcknowledged: false,
        isFlushed: false,
        isRefused: false,
        isObservation: false,
      }));
    });
  }

  /** In words, for the report of what went wrong. */
  describe(grain: number): string {
    return this.#grains[grain].map((write) =>
      `${write.name} (${write.begin} to ${write.end}${write.isAcknowledged ? ", acknowledged" : ""}${
        write.isFlushed ? ", flushed" : ""
      })`
    ).join("; ");
  }

  #checkGrain(read: Pending, grain: number, word: number): void {
    const writes = this.#grains[grain];
    const isPast = (write: Write) =>
      writes.some((later) => later.isAcknowledged && later.end < read.begin && later.begin > write.end);
    const allowed = writes.filter((write) => !isPast(write));
    const seen = allowed.find((write) => wordOf(write.content, grain) === word);
    if (seen === undefined) {
      const name = [...this.#names].find(([content]) => wordOf(content, grain) === word)?.[1];
      throw new Wrong(
        `grain ${grain} reads as ${
          name ?? `something else (0x${word.toString(16)}${this.#elsewhere(word)})`
        } ` +
          `at ${read.begin}; may be: ${this.describe(grain)}`,
      );
    }
    const isSettled = writes.every((write) => write.end < read.begin);
    if (!isSettled || allowed.every((write) => write.content === seen.content)) return;
    const end = this.#tick;
    const { content, name } = seen;
    writes.push({
      content,
      name: `${name}, as read`,
      begin: read.begin,
      end,
      isAcknowledged: true,
      isFlushed: false,
      // Which of those with the same content (zeroes) it was, nobody can tell.
      isRefused: allowed.some(({ content: other, isRefused }) => other === content && isRefused),
      isObservation: true,
      from: grain,
      to: grain + 1,
    });
  }

  #elsewhere(word: number): string {
    for (let grain = 0; grain < this.#grains.length; grain++) {
      for (const [content, name] of this.#names) {
        if (content !== 0 && wordOf(content, grain) === word) return `: grain ${grain} of ${name}`;
      }
    }
    return "";
  }

  #write(name: string, content: number, from: number, to: number): Write {
    return {
      content,
      name,
      begin: this.#tick++,
      end: Infinity,
      isAcknowledged: false,
      isFlushed: false,
      isRefused: false,
      isObservation: false,
      from,
      to,
    };
  }

  /** Forgets what no reader and no power failure can bring back. */
  #prune(grain: number): void {
    const writes = this.#grains[grain];
    if (writes.length < 16) return;
    let oldest = this.#tick;
    for (const { begin } of this.#reads) oldest = Math.min(oldest, begin);
    this.#grains[grain] = writes.filter((write) =>
      !writes.some((later) =>
        later.isAcknowledged && later.isFlushed && later.begin > write.end && later.end < oldest
      )
    );
  }
}

/** What every word of the grain is. */
function wordOf(content: number, grain: number): number {
  if (content === 0) return 0;
  let word = Math.imul(content, 0x9e3779b1) ^ Math.imul(grain + 1, 0x85ebca6b);
  word = Math.imul(word ^ (word >>> 15), 0x2c1b3c6d);
  return ((word ^ (word >>> 13)) >>> 0) || 1;
}
