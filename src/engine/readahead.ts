/**
 * Notices sequential reading and says how far to read ahead. Pure.
 *
 * Several streams are followed at once, each known by the offset where its next read is expected. Clients
 * with many requests in flight send them slightly out of order, so a read that lands a little before or
 * after the expected place belongs to the stream as well. The window doubles with each hit.
 */
const minWindowBytes = 128 * 1024;
const maxWindowBytes = 2 * 1024 * 1024;
const slackBytes = 512 * 1024;
const maxStreams = 8;
/** A stream must have grown by this many reads before anything is read ahead of it. */
const minHits = 2;

interface Stream {
  nextOffset: number;
  hits: number;
  windowBytes: number;
}

export class Readahead {
  /** The most recently used first. */
  readonly #streams: Stream[] = [];

  /** Reports a read of [offset, end); returns how many bytes after `end` to have at hand, 0 for none. */
  onRead(offset: number, end: number): number {
    const at = this.#streams.findIndex((stream) => Math.abs(offset - stream.nextOffset) <= slackBytes);
    if (at === -1) {
      this.#streams.unshift({ nextOffset: end, hits: 0, windowBytes: minWindowBytes });
      this.#streams.length = Math.min(this.#streams.length, maxStreams);
      return 0;
    }
    const [stream] = this.#streams.splice(at, 1);
    this.#streams.unshift(stream);
    // A read that falls back is no progress: random reads in a small area are no stream.
    if (end <= stream.nextOffset) return 0;
    const isNext = offset >= stream.nextOffset - (end - offset);
    stream.nextOffset = end;
    if (!isNext) return 0;
    stream.hits++;
    if (stream.hits < minHits) return 0;
    stream.windowBytes = Math.min(maxWindowBytes, stream.windowBytes * 2);
    return stream.windowBytes;
  }
}
