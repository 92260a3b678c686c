import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  indexBits,
  type MapSink,
  pageBlocks,
  pageWords,
  planes,
  residency,
  ResidencyMap,
} from "../../src/engine/residency.ts";

/** Storage as the store keeps it: pages by number and the index, updated only through the sink. */
class StoredMap implements MapSink {
  readonly pages = new Map<number, Uint32Array>();
  index: Uint8Array;
  map: ResidencyMap;
  constructor(blockCount: number) {
    this.map = new ResidencyMap(blockCount, this, (page) => this.pages.get(page)!);
    this.index = new Uint8Array(this.map.pageCount);
  }
  pageChanged(page: number, words: Uint32Array, from: number, to: number, isNew: boolean): void {
    const stored = this.pages.get(page) ?? new Uint32Array(pageWords);
    if (isNew) stored.set(words);
    else stored.set(words.subarray(from, to), from);
    this.pages.set(page, stored);
  }
  indexChanged(from: number, to: number): void {
    this.index.set(this.map.index.subarray(from, to), from);
  }
  reopen(): ResidencyMap {
    const copies = new Map([...this.pages].map(([page, words]) => [page, words.slice()]));
    const map = new ResidencyMap(this.map.blockCount, this, (page) => copies.get(page)!, this.index.slice());
    for (let page = 0; page < map.pageCount; page++) if (map.index[page]) map.recount(page);
    return map;
  }
}

const test = suite("residency map");

test("equals a plain array after any marks, in memory and when reopened", () => {
  const mark = fc.record({
    at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
    length: fc.oneof(fc.integer({ min: 1, max: 70 }), fc.integer({ min: 1, max: 3 * pageBlocks })),
    aligned: fc.boolean(),
    plane: fc.constantFrom(planes.crossed, planes.written),
  });
  const blockCounts = fc.constantFrom(1, 31, 33, 1000, pageBlocks, pageBlocks + 1, 3 * pageBlocks - 7);
  fc.assert(
    fc.property(blockCounts, fc.array(mark, { maxLength: 30 }), (blockCount, marks) => {
      const stored = new StoredMap(blockCount);
      const model = new Uint8Array(blockCount);
      for (const { at, length, aligned, plane } of marks) {
        let first = Math.floor(at * blockCount);
        if (aligned) first -= first % pageBlocks;
        const count = Math.min(length, blockCount - first);
        stored.map.mark(first, count, plane);
        for (let block = first; block < first + count; block++) model[block] |= 1 << plane;
      }
      for (const map of [stored.map, stored.reopen()]) checkAgainst(map, model);
    }),
    { numRuns: 150 },
  );
});

function checkAgainst(map: ResidencyMap, model: Uint8Array): void {
  let block = 0;
  for (const run of map.runs(0, model.length)) {
    assert.is(run.first, block);
    assert.ok(run.count > 0);
    for (; block < run.first + run.count; block++) {
      const bits = model[block];
      const expected = bits & 2 ? residency.written : bits & 1 ? residency.fetched : residency.absent;
      if (run.state !== expected) assert.unreachable(`block ${block}: ${run.state}, not ${expected}`);
      if (map.hasCrossed(block) !== ((bits & 1) !== 0)) assert.unreachable(`block ${block}: crossed bit`);
    }
  }
  assert.is(block, model.length);
  assert.is(map.crossedCount, model.filter((bits) => bits & 1).length);
  assert.is(map.writtenCount, model.filter((bits) => bits & 2).length);
  assert.is(map.bothCount, model.filter((bits) => bits === 3).length);
  assert.is(map.absentCount, model.filter((bits) => bits === 0).length);
  assert.is(map.find(residency.absent, 0), model.indexOf(0));
  assert.is(map.isResident(0, model.length), !model.includes(0));
}

test("64 TiB opens at once, and uniform pages cost no memory", () => {
  const blocks = 64 * 2 ** 40 / 4096;
  const stored = new StoredMap(blocks);
  stored.map.mark(0, blocks - 1, planes.crossed);
  stored.map.mark(5 * pageBlocks, pageBlocks, planes.written);
  assert.is(stored.map.absentCount, 1);
  assert.is(stored.map.find(residency.absent, 0), blocks - 1);
  assert.is(stored.map.loadedPages, 1);
  assert.is(stored.map.index.length, 2 ** 20);
});

test("a page whose words say no more than the index is let go", () => {
  const stored = new StoredMap(2 * pageBlocks);
  for (let block = 0; block < pageBlocks; block += 64) stored.map.mark(block, 64, planes.crossed);
  assert.is(stored.map.loadedPages, 0);
  assert.is(stored.index[0], indexBits.crossed);
  stored.map.mark(7, 1, planes.written);
  assert.is(stored.map.loadedPages, 1);
  assert.is(stored.map.stateOf(7), residency.written);
  assert.is(stored.map.stateOf(8), residency.fetched);
});

test.run();
