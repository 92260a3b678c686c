/**
 * A random load on a volume whose every effect is known: each guest owns bytes that nobody else writes, keeps
 * its requests in flight apart from each other, and applies each to the model when it is answered. What is
 * read is compared at once.
 */
import { Buffer } from "node:buffer";
import { randomFillSync } from "node:crypto";
import { command, commandFlag } from "../../src/nbd-server/protocol.ts";
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "../engine/memory.ts";
import type { NbdClient } from "./nbd-client.ts";

export interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** What one guest may write. */
export interface Area {
  /** A range of the guest's own bytes. */
  pick(random: Random): Extent;
}

/** All bytes in [from, to), in pieces from one byte to 256 KiB, on block boundaries or not. */
export function wholeArea(from: number, to: number): Area {
  return {
    pick(random) {
      const unit = random.chance(0.5) ? 4096 : random.chance(0.5) ? 512 : 1;
      const offset = from + Math.floor(random.below(to - from) / unit) * unit;
      const most = random.chance(0.15) ? 256 * 1024 : random.chance(0.5) ? 16 * 1024 : 700;
      const length = Math.max(1, Math.floor((1 + random.below(most)) / unit) * unit);
      return { offset, length: Math.min(length, to - offset) };
    },
  };
}

/** Of each 4 KiB in [from, to) the guest's own slice, one of `guests`: others write beside it. */
export function slicedArea(from: number, to: number, guest: number, guests: number): Area {
  const sliceBytes = Math.floor(4096 / guests);
  return {
    pick(random) {
      const slice = from + random.below((to - from) / 4096) * 4096 + guest * sliceBytes;
      const start = random.below(sliceBytes);
      return { offset: slice + start, length: 1 + random.below(sliceBytes - start) };
    },
  };
}

export interface Load {
  /** The disk as it has to be, shared by all guests. */
  readonly model: Buffer;
  readonly blockBytes: number;
  /** Nobody writes here; everybody may read. */
  readonly untouched: Extent;
  /** Requests in flight on each connection. */
  readonly depth: number;
  /** Of each guest at least; after these it goes on at a moderate pace until `isOver`. */
  readonly requests: number;
  isOver(): boolean;
}

/** Runs one guest to the end of the load; resolves with the number of its requests. */
export async function runGuest(client: NbdClient, area: Area, random: Random, load: Load): Promise<number> {
  const inUse: Extent[] = [];
  let done = 0;
  const lane = async () => {
    while (done < load.requests || !load.isOver()) {
      if (done >= load.requests) await sleep(20);
      const extent = area.pick(random);
      if (inUse.some((other) => overlap(other, extent))) {
        // The request in the way is answered in a later turn.
        await new Promise<void>((resolve) => setImmediate(resolve));
        continue;
      }
      inUse.push(extent);
      await step(client, extent, random, load);
      inUse.splice(inUse.indexOf(extent), 1);
      done++;
    }
  };
  await Promise.all(Array.from({ length: load.depth }, lane));
  return done;
}

const overlap = (a: Extent, b: Extent) => a.offset < b.offset + b.length && b.offset < a.offset + a.length;

async function step(client: NbdClient, extent: Extent, random: Random, load: Load) {
  const { offset, length } = extent;
  const { model, untouched } = load;
  const dice = random.next();
  if (dice < 0.25) {
    compare(await client.read(offset, length), model, offset);
  } else if (dice < 0.3) {
    const at = untouched.offset + random.below(untouched.length);
    const bytes = Math.min(1 + random.below(100_000), untouched.offset + untouched.length - at);
    compare(await client.read(at, bytes), model, at);
  } else if (dice < 0.65) {
    const data = randomFillSync(Buffer.allocUnsafe(length));
    await client.write(offset, data, { fua: random.chance(0.05) });
    data.copy(model, offset);
  } else if (dice < 0.75) {
    await client.zero(offset, length, { noHole: random.chance(0.5), fua: random.chance(0.05) });
    model.fill(0, offset, offset + length);
  } else if (dice < 0.8) {
    const flags = commandFlag.fastZero;
    const { error } = await client.request({ type: command.writeZeroes, offset, length, flags });
    if (error !== 0 && error !== notSupported) throw new Error(`fast zero: error ${error}`);
    if (error === 0) model.fill(0, offset, offset + length);
  } else if (dice < 0.9) {
    await client.trim(offset, length);
    const { from, to } = trimmed(extent, load);
    if (from < to) model.fill(0, from, to);
  } else if (dice < 0.95) {
    await client.prefetch(offset, length);
  } else {
    await client.flush();
  }
}

const notSupported = 95;

/** A trim takes whole blocks only, the short one at the end of the disk included. */
export function trimmed(
  { offset, length }: Extent,
  { model, blockBytes }: Load,
): { from: number; to: number } {
  const end = offset + length;
  const from = Math.ceil(offset / blockBytes) * blockBytes;
  return { from, to: end === model.length ? end : Math.floor(end / blockBytes) * blockBytes };
}

/** Throws unless `actual` is what the model has at `offset`; says where it differs. */
export function compare(actual: Buffer, model: Buffer, offset: number, what = "read"): void {
  const expected = model.subarray(offset, offset + actual.length);
  if (actual.equals(expected)) return;
  const at = actual.findIndex((byte, index) => byte !== expected[index]);
  const last = actual.findLastIndex((byte, index) => byte !== expected[index]);
  throw new Error(
    `${what} of ${actual.length} bytes at ${offset}: differs from ${offset + at} to ${offset + last}, ` +
      `first ${actual[at]} instead of ${expected[at]}`,
  );
}
