/**
 * The local writes under way. Pure.
 *
 * A claim says: these blocks are being written (zeroed, trimmed) here right now. A fetch that completes
 * meanwhile does not store them, and a read of such a block that was absent waits for the claim to end, so
 * that the write wins whatever the order of completion (invariant 5).
 */
import { type BlockRange, RangeIndex } from "./range-index.ts";

export interface Claim extends BlockRange {
  /** Blocks of the claim that a fetch brought meanwhile, and dropped. */
  readonly crossed: BlockRange[];
}

interface ActiveClaim extends Claim {
  waiters: (() => void)[] | undefined;
}

export class Claims {
  readonly #claims = new RangeIndex<ActiveClaim>();

  get size(): number {
    return this.#claims.size;
  }

  add(first: number, count: number): Claim {
    const claim: ActiveClaim = { first, count, crossed: [], waiters: undefined };
    this.#claims.add(claim);
    return claim;
  }

  /** Ends a claim and wakes who waits for it. */
  release(claim: Claim): void {
    const active = claim as ActiveClaim;
    this.#claims.delete(active);
    for (const wake of active.waiters ?? []) wake();
  }

  /** The claim with the lowest start among those that overlap the range. */
  lowest(first: number, count: number): Claim | undefined {
    return this.#claims.lowest(first, count);
  }

  /** Every claim that overlaps the range. */
  *overlapping(range: BlockRange): Generator<Claim> {
    for (const claim of this.#claims) {
      if (claim.first < range.first + range.count && range.first < claim.first + claim.count) yield claim;
    }
  }

  /** Resolves when the claim has been released. */
  ended(claim: Claim): Promise<void> {
    const active = claim as ActiveClaim;
    return new Promise((resolve) => (active.waiters ??= []).push(resolve));
  }
}

/** The part of `a` that lies in `b`; undefined if none does. */
export function intersection(a: BlockRange, b: BlockRange): BlockRange | undefined {
  const first = Math.max(a.first, b.first);
  const end = Math.min(a.first + a.count, b.first + b.count);
  return first < end ? { first, count: end - first } : undefined;
}

/** What of `range` no claim covers, in order. */
export function* unclaimed(range: BlockRange, claims: Claims): Generator<BlockRange> {
  const end = range.first + range.count;
  for (let at = range.first; at < end;) {
    const claim = claims.lowest(at, end - at);
    if (claim === undefined) {
      yield { first: at, count: end - at };
      return;
    }
    if (claim.first > at) yield { first: at, count: claim.first - at };
    at = Math.max(at, claim.first + claim.count);
  }
}
