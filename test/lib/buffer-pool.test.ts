import { suite } from "uvu";
import * as assert from "uvu/assert";
import { BufferPool } from "../../src/lib/buffer-pool.ts";

const test = suite("buffer pool");
const KiB = 1024;

test("gives back what was given, to the length that is asked for", () => {
  const pool = new BufferPool(1024 * KiB);
  const first = pool.take(100 * KiB);
  assert.is(first.length, 100 * KiB);
  pool.give(first);
  const second = pool.take(128 * KiB);
  assert.is(second.length, 128 * KiB);
  assert.ok(second.buffer === first.buffer);
  assert.ok(pool.take(128 * KiB).buffer !== first.buffer, "one at a time");
});

test("never takes in memory that is not its own", () => {
  const pool = new BufferPool(1024 * KiB);
  const foreign = new Uint8Array(128 * KiB);
  pool.give(foreign);
  assert.ok(pool.take(128 * KiB).buffer !== foreign.buffer);
});

test("keeps no more than it may, and nothing small or huge", () => {
  const pool = new BufferPool(300 * KiB);
  const buffers = [pool.take(256 * KiB), pool.take(256 * KiB)];
  for (const buffer of buffers) pool.give(buffer);
  const taken = [pool.take(256 * KiB), pool.take(256 * KiB)];
  assert.is(taken.filter(({ buffer }) => buffers.some((each) => each.buffer === buffer)).length, 1);
  for (const length of [1, 4 * KiB, 2048 * KiB]) assert.is(pool.take(length).length, length);
});

test.run();
