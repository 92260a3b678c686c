/** The source disk as the engine sees it: readable, sometimes out of reach, never writable. */

/** Demand reads and the background sync have a session each, so that neither queues behind the other. */
export type Lane = "demand" | "sync";

/** A stretch of the source that its target called mapped or not. Offsets and lengths in bytes. */
export interface SourceExtent {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly mapped: boolean;
}

export interface Source {
  /** The unit of reads: offsets and lengths must be multiples of it (512 or 4096). */
  readonly blockBytes: number;
  /**
   * Fills `into` from `offset`; resolves only when the command that brought the data ended with GOOD status.
   * Waits while the source cannot be reached. Rejects if the source cannot read there.
   */
  read(lane: Lane, offset: number, into: Uint8Array): Promise<void>;
  /**
   * What is mapped from `offset` on, as far as the target says it in one answer; gaps between extents count
   * as mapped. Undefined if the target does not tell, or if what it calls unmapped need not be zero.
   */
  extents(offset: number): Promise<readonly SourceExtent[] | undefined>;
}
