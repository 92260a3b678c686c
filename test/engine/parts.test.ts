/** The small pure parts of the engine. */
import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Claims, intersection, unclaimed } from "../../src/engine/claims.ts";
import { Holes } from "../../src/engine/holes.ts";
import {
  decodeHeader,
  emptyCounters,
  encodeHeader,
  headerBytes,
  newestHeader,
} from "../../src/engine/map-layout.ts";
import { type BlockRange, RangeIndex } from "../../src/engine/range-index.ts";
import { Readahead } from "../../src/engine/readahead.ts";
import type { Source, SourceExtent } from "../../src/engine/source.ts";
import { TokenBucket } from "../../src/engine/token-bucket.ts";

const test = suite("engine parts");
const KiB = 1024;
const overlaps = (a: BlockRange, b: BlockRange) => a.first < b.first + b.count && b.first < a.first + a.count;

test("RangeIndex finds the lowest overlapping range, as looking through all of them would", () => {
  const range = fc.record({
    first: fc.integer({ min: 0, max: 5000 }),
    count: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 4000 })),
  });
  fc.assert(
    fc.property(fc.array(range, { maxLength: 30 }), fc.array(range, { maxLength: 10 }), (ranges, queries) => {
      const index = new RangeIndex<BlockRange>();
      for (const each of ranges) index.add(each);
      const removed = new Set(ranges.filter((_, at) => at % 3 === 0));
      for (const each of removed) index.delete(each);
      const left = ranges.filter((each) => !removed.has(each));
      assert.is(index.size, left.length);
      for (const query of queries) {
        const expected = left.filter((each) => overlaps(each, query)).map(({ first }) => first);
        const found = index.lowest(query.first, query.count);
        assert.is(found?.first, expected.length === 0 ? undefined : Math.min(...expected));
        const wide = left.filter((each) => overlaps(each, query) && each.count > 10).map(({ first }) =>
          first
        );
        const accepted = index.lowest(query.first, query.count, (each) => each.count > 10);
        assert.is(accepted?.first, wide.length === 0 ? undefined : Math.min(...wide));
      }
    }),
  );
});

test("unclaimed gives exactly what no claim covers", () => {
  const range = fc.record({
    first: fc.integer({ min: 0, max: 100 }),
    count: fc.integer({ min: 1, max: 40 }),
  });
  fc.assert(fc.property(fc.array(range, { maxLength: 6 }), range, (ranges, whole) => {
    const claims = new Claims();
    for (const { first, count } of ranges) claims.add(first, count);
    const free = [...unclaimed(whole, claims)];
    for (let block = whole.first; block < whole.first + whole.count; block++) {
      const one = { first: block, count: 1 };
      const isClaimed = ranges.some((each) => overlaps(each, one));
      assert.is(free.filter((each) => intersection(each, one) !== undefined).length, isClaimed ? 0 : 1);
    }
  }));
});

test("a claim's end wakes everybody who waits for it", async () => {
  const claims = new Claims();
  const claim = claims.add(3, 4);
  const waiting = [claims.ended(claim), claims.ended(claim)];
  assert.is(claims.lowest(0, 4), claim);
  claims.release(claim);
  await Promise.all(waiting);
  assert.is(claims.lowest(0, 100), undefined);
});

test("TokenBucket keeps the rate over any pattern of requests", () => {
  fc.assert(fc.property(
    fc.integer({ min: 1000, max: 1_000_000 }),
    fc.array(fc.integer({ min: 1, max: 200_000 }), { minLength: 5, maxLength: 60 }),
    (rate, sizes) => {
      let now = 0;
      let taken = 0;
      const bucket = new TokenBucket(rate, now);
      for (const size of sizes) {
        for (let wait = bucket.take(size, now); wait > 0; wait = bucket.take(size, now)) now += wait;
        taken += size;
      }
      // A tenth of a second's worth may be saved up, and the last request is let through before it is paid for.
      const allowed = rate * now / 1000 + rate / 10 + Math.max(...sizes);
      assert.ok(taken <= allowed + 1, `${taken} taken, ${allowed} allowed`);
    },
  ));
  const unlimited = new TokenBucket(Infinity, 0);
  assert.is(unlimited.take(1e15, 0), 0);
  unlimited.setRate(1000, 0);
  assert.is(unlimited.take(2000, 0), 0);
  assert.is(unlimited.take(1, 0), 2000);
});

test("Readahead grows with a sequential stream, keeps several apart, and leaves random reads alone", () => {
  const readahead = new Readahead();
  const windows = [0, 1, 2, 3, 4, 5].map((n) => readahead.onRead(n * 64 * KiB, (n + 1) * 64 * KiB));
  assert.equal(windows.slice(0, 2), [0, 0]);
  assert.ok(windows[2] > 0 && windows[3] === 2 * windows[2]);
  assert.ok(windows[5] <= 2 * KiB * KiB);
  const other = 1024 ** 3;
  for (let n = 0; n < 3; n++) readahead.onRead(other + n * 4096, other + (n + 1) * 4096);
  assert.ok(readahead.onRead(6 * 64 * KiB, 7 * 64 * KiB) > 0, "the first stream is still known");
  const random = new Readahead();
  for (let n = 0; n < 100; n++) {
    const offset = ((n * 7919) % 1009) * 16 * 1024 * KiB;
    assert.is(random.onRead(offset, offset + 4096), 0);
  }
});

test("Holes: only whole blocks of what was called unmapped; gaps and everything unknown count as mapped", async () => {
  const extent = fc.record({
    gap: fc.nat(20),
    sectors: fc.integer({ min: 1, max: 60 }),
    mapped: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(extent, { maxLength: 12 }),
      fc.integer({ min: 1, max: 7 }),
      async (parts, tail) => {
        const extents: SourceExtent[] = [];
        let at = 0;
        for (const { gap, sectors, mapped } of parts) {
          at += gap * 512;
          extents.push({ offsetBytes: at, lengthBytes: sectors * 512, mapped });
          at += sectors * 512;
        }
        const sizeBytes = at + tail * 512;
        const isHole = new Uint8Array(sizeBytes / 512);
        for (const { offsetBytes, lengthBytes, mapped } of extents) {
          if (!mapped) isHole.fill(1, offsetBytes / 512, (offsetBytes + lengthBytes) / 512);
        }
        const source = {
          blockBytes: 512,
          read: () => Promise.reject(new Error("not asked for")),
          extents: (offset: number) =>
            Promise.resolve(
              extents.filter((each) => each.offsetBytes + each.lengthBytes > offset).slice(0, 3),
            ),
        } satisfies Source;
        const holes = new Holes(source, { blockBytes: 4096, sizeBytes });
        const blocks = Math.ceil(sizeBytes / 4096);
        for (let block = 0; block < blocks;) {
          if (!holes.knows(block)) await holes.learn(block);
          assert.ok(holes.knows(block), "learning always makes progress");
          const { isHole: isFree, range } = holes.stretch(block, blocks - block);
          assert.is(range.first, block);
          assert.ok(range.count > 0);
          if (isFree) {
            for (
              let sector = block * 8;
              sector < Math.min((block + range.count) * 8, isHole.length);
              sector++
            ) {
              assert.is(isHole[sector], 1, `sector ${sector} is no hole`);
            }
          }
          block += range.count;
        }
      },
    ),
  );
});

test("Holes: what the source does not tell is mapped", async () => {
  const source = { blockBytes: 512, read: () => Promise.reject(), extents: () => Promise.resolve(undefined) };
  const holes = new Holes(source, { blockBytes: 4096, sizeBytes: 1 << 20 });
  await holes.learn(0);
  assert.ok(holes.knows(200));
  assert.equal(holes.stretch(0, 256), { isHole: false, range: { first: 0, count: 256 } });
});

test("a map header reads back as it was; any changed byte makes it invalid; the newer valid slot counts", () => {
  const header = {
    sizeBytes: 64 * 2 ** 40,
    blockBytes: 4096,
    volumeId: "abc",
    bootId: "b-1",
    generation: "0a1b",
    sequence: 7,
    activated: true,
    localZero: false,
    clean: true,
    missesWrites: true,
    syncFailed: true,
    counters: { ...emptyCounters(), demandBytes: 2 ** 50, holeBytes: 5 },
  };
  const bytes = encodeHeader(header);
  assert.is(bytes.length, headerBytes);
  assert.equal(decodeHeader(bytes), header);
  for (let at = 0; at < bytes.length; at++) {
    const changed = bytes.slice();
    changed[at] ^= 1;
    assert.is(decodeHeader(changed), undefined, `byte ${at}`);
  }
  const newer = encodeHeader({ ...header, sequence: 8 });
  assert.is(newestHeader([bytes, newer])?.sequence, 8);
  assert.is(newestHeader([newer.slice().fill(0, 100, 200), bytes])?.sequence, 7);
  assert.is(newestHeader([new Uint8Array(512), new Uint8Array(512)]), undefined);
});

test.run();
