/**
 * The writing half of a volume: every write, zero or trim is a local operation under a claim, marked when its
 * data is on the local disk. See volume.ts for the whole.
 */
import { blocksOf } from "./blocks.ts";
import type { Checkpoints } from "./checkpoints.ts";
import type { Claim, Claims } from "./claims.ts";
import type { FetchQueue } from "./fetch-queue.ts";
import type { Geometry } from "./map-layout.ts";
import type { BlockRange } from "./range-index.ts";
import type { Reading } from "./reading.ts";
import { planes, residency } from "./residency.ts";
import type { ResidencyStore } from "./residency-store.ts";

export interface WritingDependencies {
  readonly geometry: Geometry;
  readonly store: ResidencyStore;
  readonly queue: FetchQueue;
  readonly claims: Claims;
  readonly checkpoints: Checkpoints;
  /** Makes the blocks resident of which only a part is written. */
  readonly reading: Reading;
}

export class Writing {
  readonly #deps: WritingDependencies;
  readonly #blockBytes: number;
  #isClosed = false;

  constructor(deps: WritingDependencies) {
    this.#deps = deps;
    this.#blockBytes = deps.geometry.blockBytes;
  }

  /** From now on no write begins: what came too late, or still waits, is refused; nobody is there to hear of it. */
  close(): void {
    this.#isClosed = true;
  }

  /** Runs a local write of [offset, offset + length) under a claim, and marks its blocks. */
  async run(offset: number, length: number, write: () => Promise<void>): Promise<void> {
    const range = blocksOf(this.#blockBytes, offset, length);
    for (;;) {
      const edges = this.absentEdges(offset, length);
      if (edges.length > 0) {
        await Promise.all(
          edges.map((block) => this.#deps.reading.makeResident({ first: block, count: 1 }, "demand")),
        );
        continue;
      }
      const storing = this.#deps.queue.storing(range.first, range.count);
      if (storing === undefined) break;
      await storing.settled;
    }
    if (this.#isClosed) throw Object.assign(new Error("the volume is closed"), { code: "ECANCELED" });
    const claim = this.#deps.claims.add(range.first, range.count);
    try {
      this.#markResident(range);
      await write();
      this.#deps.checkpoints.dataWritten(length);
      this.#markWritten(claim);
    } catch (error) {
      this.#deps.store.forgetLocalZero();
      // A part of it may be there, and be read: the next flush makes that durable, too.
      this.#deps.checkpoints.dataWritten(length);
      throw error;
    } finally {
      this.#deps.claims.release(claim);
    }
  }

  /**
   * What is resident counts as written before it is: whatever becomes of the write and of this process, a block
   * that is not marked is as it came from the source. (One that is absent is fetched again if the write fails.)
   */
  #markResident({ first, count }: BlockRange): void {
    for (const run of this.#deps.store.map.runs(first, count)) {
      if (run.state === residency.fetched) this.#deps.store.mark(run.first, run.count, planes.written);
    }
  }

  #markWritten(claim: Claim): void {
    this.#deps.store.mark(claim.first, claim.count, planes.written);
    for (const range of claim.crossed) this.#deps.store.mark(range.first, range.count, planes.crossed);
  }

  /** The first and last block of the range, where it covers only a part of them and they are absent. */
  absentEdges(offset: number, length: number): number[] {
    const { first, count } = blocksOf(this.#blockBytes, offset, length);
    const last = first + count - 1;
    const end = offset + length;
    const { map } = this.#deps.store;
    const headIsPart = offset % this.#blockBytes !== 0;
    const tailIsPart = end % this.#blockBytes !== 0 && end !== this.#deps.geometry.sizeBytes;
    const edges: number[] = [];
    if ((headIsPart || (tailIsPart && first === last)) && map.stateOf(first) === residency.absent) {
      edges.push(first);
    }
    if (tailIsPart && last !== first && map.stateOf(last) === residency.absent) edges.push(last);
    return edges;
  }
}
