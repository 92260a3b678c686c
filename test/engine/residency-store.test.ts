/** What is left of the residency map after a crash of the process or the power. */
import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { encodeHeader, indexOffset, slotBytes } from "../../src/engine/map-layout.ts";
import { pageBlocks, type Plane, planes, residency } from "../../src/engine/residency.ts";
import { LiveMapError, MapError, readHeader, ResidencyStore } from "../../src/engine/residency-store.ts";
import { rejection } from "../helpers/rejection.ts";
import { CrashFile, Killed } from "./crash-file.ts";
import { Random } from "./memory.ts";

const blockBytes = 4096;

interface Marking {
  readonly first: number;
  readonly count: number;
  readonly plane: Plane;
}

const crashes = ["process", "power", "power, live file kept"] as const;

/** A store under test, and the marks that it must and may have after a crash. */
class Tracked {
  readonly blockCount: number;
  readonly random: Random;
  files = { durable: new CrashFile(), live: new CrashFile() };
  store!: ResidencyStore;
  /** Per block the bits 1 << plane: made durable for sure, and marked at all. */
  readonly durable: Uint8Array;
  marked: Uint8Array;
  /** Counted up with each mark; saved with it. */
  counted = 0;
  durableCounted = 0;
  isActivated = false;
  #boot = 1;

  constructor(blockCount: number, seed: number) {
    this.blockCount = blockCount;
    this.random = new Random(seed);
    this.durable = new Uint8Array(blockCount);
    this.marked = new Uint8Array(blockCount);
  }

  get identity() {
    // The last block is short.
    const sizeBytes = this.blockCount * blockBytes - 1024;
    return { sizeBytes, blockBytes, volumeId: "volume", bootId: `boot ${this.#boot}` };
  }

  async create(): Promise<this> {
    this.store = await ResidencyStore.create(this.files, { ...this.identity, localZero: true });
    return this;
  }

  mark({ first, count, plane }: Marking): void {
    for (let block = first; block < first + count; block++) this.marked[block] |= 1 << plane;
    this.store.mark(first, count, plane);
    this.store.counters.syncBytes = ++this.counted;
    this.store.saveCounters();
  }

  async checkpoint(syncData: () => Promise<void> = () => Promise.resolve()): Promise<void> {
    const marked = this.marked.slice();
    const hasPages = this.store.dirtyPageCount > 0;
    const { counted } = this;
    await this.store.checkpoint(syncData);
    this.durable.set(marked);
    if (hasPages) this.durableCounted = counted;
  }

  /** Ends the process, and perhaps the power; opens what is left, and checks it. */
  async crash(kind: typeof crashes[number]): Promise<void> {
    const { durable, live } = this.files;
    if (kind === "process") {
      this.files = { durable: copyOf(durable), live: copyOf(live) };
    } else {
      this.#boot++;
      const keepsLive = kind === "power, live file kept";
      this.files = {
        durable: durable.afterPowerLoss(this.random),
        live: keepsLive ? live.afterPowerLoss(this.random) : new CrashFile(),
      };
    }
    this.store = await ResidencyStore.open(this.files, this.identity);
    this.check(kind === "process" ? this.marked : this.durable, kind);
    if (kind !== "process") {
      // What the map says now came from the disk: it is durable.
      this.marked = bitsOf(this.store);
      this.durable.set(this.marked);
      this.counted = this.durableCounted = this.store.counters.syncBytes;
    }
  }

  /** The map has at least `atLeast`, at most what was marked, and counts right. */
  check(atLeast: Uint8Array, when: string): void {
    const found = bitsOf(this.store);
    for (let block = 0; block < found.length; block++) {
      if ((found[block] & atLeast[block]) !== atLeast[block]) {
        assert.unreachable(`${when}: block ${block} lost bits: ${found[block]}, not ${atLeast[block]}`);
      }
      if ((found[block] & ~this.marked[block]) !== 0) {
        assert.unreachable(`${when}: block ${block} has ${found[block]}, marked ${this.marked[block]}`);
      }
    }
    const { map, counters } = this.store;
    assert.is(map.absentCount, found.filter((bits) => bits === 0).length, `${when}: absent blocks`);
    assert.is(map.bothCount, found.filter((bits) => bits === 3).length, `${when}: blocks with both bits`);
    const least = when === "process" ? this.counted : this.durableCounted;
    assert.ok(counters.syncBytes >= least && counters.syncBytes <= this.counted, `${when}: counters`);
    assert.is(this.store.activated, this.isActivated, `${when}: activated`);
    assert.is(this.store.localZero, false, `${when}: a write may have been under way`);
  }
}

function copyOf(file: CrashFile): CrashFile {
  // Not what the power would leave: that comes with the unsynced versions, which outlive a process.
  return Object.assign(file, { writesLeft: Infinity, failing: undefined });
}

function bitsOf({ map }: ResidencyStore): Uint8Array {
  return Uint8Array.from(
    { length: map.blockCount },
    (_, block) => (map.hasCrossed(block) ? 1 : 0) | (map.stateOf(block) === residency.written ? 2 : 0),
  );
}

const test = suite("residency store");

const someBlocks = pageBlocks * 2 + 77;
const marking: fc.Arbitrary<Marking> = fc.record({
  at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
  length: fc.oneof(fc.integer({ min: 1, max: 70 }), fc.integer({ min: 1, max: 2 * pageBlocks })),
  isAligned: fc.boolean(),
  plane: fc.constantFrom(planes.crossed, planes.written),
}).map(({ at, length, isAligned, plane }) => {
  let first = Math.floor(at * someBlocks);
  if (isAligned) first -= first % pageBlocks;
  return { first, count: Math.min(length, someBlocks - first), plane };
});

const crash = fc.constantFrom(...crashes);
const markings = fc.array(marking, { maxLength: 3 });
const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ does: fc.constant("mark" as const), marking }) },
  { weight: 3, arbitrary: fc.record({ does: fc.constant("checkpoint" as const), markings }) },
  { weight: 1, arbitrary: fc.record({ does: fc.constant("failing checkpoint" as const), markings }) },
  { weight: 1, arbitrary: fc.record({ does: fc.constant("activate" as const) }) },
  { weight: 2, arbitrary: fc.record({ does: fc.constant("crash" as const), crash }) },
  {
    weight: 1,
    arbitrary: fc.record({
      does: fc.constant("killed marking" as const),
      marking,
      writes: fc.integer({ min: 0, max: 3 }),
      crash,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      does: fc.constant("killed checkpoint" as const),
      markings,
      writes: fc.integer({ min: 0, max: 6 }),
      crash,
    }),
  },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

async function take(tracked: Tracked, step: Step): Promise<void> {
  const markAll = (markings: readonly Marking[]) => () => {
    for (const marking of markings) tracked.mark(marking);
    return Promise.resolve();
  };
  switch (step.does) {
    case "mark":
      return tracked.mark(step.marking);
    case "checkpoint":
      return await tracked.checkpoint(markAll(step.markings));
    case "failing checkpoint":
      tracked.files.durable.failing = new Error("no space left");
      await tracked.checkpoint(markAll(step.markings)).catch(() => {});
      tracked.files.durable.failing = undefined;
      return;
    case "activate":
      await tracked.store.activate();
      tracked.isActivated = true;
      return;
    case "crash":
      return await tracked.crash(step.crash);
    case "killed marking":
      // Then the mark may be there in part; it was not acknowledged.
      return await killedMarking(tracked, step.marking, step.writes, step.crash);
    case "killed checkpoint":
      await markAll(step.markings)();
      tracked.files.durable.writesLeft = step.writes;
      await tracked.checkpoint().catch(() => {});
      return await tracked.crash(step.crash);
  }
}

async function killedMarking(
  tracked: Tracked,
  marking: Marking,
  writes: number,
  crash: typeof crashes[number],
): Promise<void> {
  const before = tracked.marked.slice();
  const { counted } = tracked;
  tracked.files.live.writesLeft = writes;
  try {
    tracked.mark(marking);
  } catch (error) {
    if (!(error instanceof Killed)) throw error;
    const after = tracked.marked;
    tracked.counted = counted;
    tracked.marked = before;
    if (crash !== "process") return await tracked.crash(crash);
    // As after any kill, except that the interrupted mark's blocks may have either.
    tracked.files = { durable: copyOf(tracked.files.durable), live: copyOf(tracked.files.live) };
    tracked.store = await ResidencyStore.open(tracked.files, tracked.identity);
    tracked.marked = after;
    tracked.check(before, "killed while marking");
    tracked.marked = bitsOf(tracked.store);
    tracked.counted = tracked.store.counters.syncBytes;
    return;
  }
  tracked.files.live.writesLeft = Infinity;
  await tracked.crash(crash);
}

test("a crash leaves all that was checkpointed and nothing that was not marked; of a kill, exactly what was marked", async () => {
  // The first two once found a bug each; DLSM_SEED=random looks for more.
  const given = process.env.DLSM_SEED;
  const seeds = given === undefined
    ? [165865416, -1018661872, 1]
    : [given === "random" ? undefined : Number(given)];
  for (const seed of seeds) {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), fc.nat(), async (steps, randomSeed) => {
        const tracked = await new Tracked(someBlocks, randomSeed).create();
        for (const step of steps) await take(tracked, step);
        for (const kind of crashes) await tracked.crash(kind);
      }),
      { numRuns: 80, ...(seed === undefined ? {} : { seed }) },
    );
  }
});

test("a page that was uniform for a while loses nothing when its new words reach the disk before its index", async () => {
  for (let seed = 0; seed < 20; seed++) {
    for (const blockCount of [someBlocks, pageBlocks - 3]) {
      const tracked = await new Tracked(blockCount, seed).create();
      const whole = { first: 0, count: Math.min(pageBlocks, blockCount), plane: planes.written };
      tracked.mark({ first: 5, count: 3, plane: planes.written });
      await tracked.checkpoint(() => {
        tracked.mark(whole);
        return Promise.resolve();
      });
      tracked.mark({ first: 0, count: 1, plane: planes.crossed });
      tracked.files.durable.writesLeft = 1;
      await rejection(tracked.checkpoint(), Killed);
      await tracked.crash("power");
    }
  }
});

test("a map that was closed in good order opens as it was, in another boot too, and vouches for the zeroes", async () => {
  for (const boot of ["the same", "another"]) {
    const files = { durable: new CrashFile(), live: new CrashFile() };
    const identity = { sizeBytes: 3 * pageBlocks * blockBytes, blockBytes, volumeId: "v", bootId: "a" };
    const store = await ResidencyStore.create(files, { ...identity, localZero: true });
    store.mark(100, pageBlocks, planes.crossed);
    store.mark(5, 1, planes.written);
    Object.assign(store.counters, { demandBytes: 1, readaheadBytes: 2, syncBytes: 3, refetchedBytes: 4 });
    store.counters.holeBytes = 2 ** 45;
    await store.activate();
    await store.checkpoint(() => Promise.resolve());
    await store.close();
    if (boot === "another") files.live = new CrashFile();
    const opened = await ResidencyStore.open(files, { ...identity, bootId: boot });
    assert.equal(bitsOf(opened), bitsOf(store), boot);
    assert.equal(opened.counters, store.counters, boot);
    assert.is(opened.activated, true);
    assert.is(opened.localZero, true, `${boot} boot: no write was under way`);
    // It is open again: from here on a kill counts.
    assert.is(readHeader(files.durable)?.clean, false);
  }
});

test("the older header counts when the newer one is torn, whichever slot it is in", async () => {
  const tracked = await new Tracked(someBlocks, 1).create();
  await tracked.store.activate();
  tracked.isActivated = true;
  for (let round = 0; round < 6; round++) {
    const before = readHeader(tracked.files.durable)!.sequence;
    tracked.mark({ first: round * 10, count: 5, plane: planes.written });
    await tracked.checkpoint();
    const { sequence } = readHeader(tracked.files.durable)!;
    assert.is(sequence, before + 1);
    // Torn in the middle: its first half is of the new header, its second of nothing.
    const durable = new CrashFile(tracked.files.durable.bytes);
    durable.bytes.fill(0xa5, (sequence % 2) * slotBytes + 200, (sequence % 2) * slotBytes + 512);
    const identity = { ...tracked.identity, bootId: "the boot after" };
    const opened = await ResidencyStore.open({ durable, live: new CrashFile() }, identity);
    assert.is(opened.activated, true);
    assert.equal(bitsOf(opened), tracked.marked, "the pages are those of the checkpoint all the same");
    assert.ok(readHeader(durable)!.sequence >= sequence, "the torn slot is written again");
  }
});

const damages: [string, (bytes: Uint8Array) => void, RegExp][] = [
  [
    "both headers",
    (bytes) => bytes.fill(0x5a, 40, 60) && bytes.fill(0x5a, slotBytes + 40, slotBytes + 60),
    /header/,
  ],
  ["an empty file", (bytes) => bytes.fill(0), /header/],
  ["the index", (bytes) => bytes.fill(0xff, indexOffset, indexOffset + 3), /index/],
  ["another volume", (bytes) => rewrite(bytes, { volumeId: "other" }), /other/],
  ["another size", (bytes) => rewrite(bytes, { sizeBytes: 4096 }), /4096/],
  ["another block size", (bytes) => rewrite(bytes, { blockBytes: 65536 }), /65536/],
];

function rewrite(
  bytes: Uint8Array,
  change: { volumeId?: string; sizeBytes?: number; blockBytes?: number },
): void {
  const header = readHeader(new CrashFile(bytes))!;
  for (const slot of [0, slotBytes]) bytes.set(encodeHeader({ ...header, ...change }), slot);
}

for (const [what, damage, message] of damages) {
  test(`a damaged durable map is refused, not guessed: ${what}`, async () => {
    const tracked = await new Tracked(someBlocks, 1).create();
    tracked.mark({ first: 7, count: 9, plane: planes.written });
    await tracked.checkpoint();
    const durable = new CrashFile(tracked.files.durable.bytes);
    damage(durable.bytes);
    const before = durable.bytes.slice();
    const files = { durable, live: new CrashFile() };
    const identity = { ...tracked.identity, bootId: "the boot after" };
    const error = await rejection(ResidencyStore.open(files, identity), MapError);
    assert.match(error.message, message);
    assert.equal(durable.bytes, before, "what is there is left for whoever mends it");
  });
}

test("a live map of another boot, of another volume or without a header does not count", async () => {
  const tracked = await new Tracked(someBlocks, 1).create();
  tracked.mark({ first: 7, count: 9, plane: planes.written });
  await tracked.checkpoint();
  tracked.mark({ first: 100, count: 3, plane: planes.written });
  const { durable, live } = tracked.files;
  const open = async (bytes: Uint8Array, bootId: string) => {
    const files = { durable: new CrashFile(durable.bytes), live: new CrashFile(bytes) };
    return (await ResidencyStore.open(files, { ...tracked.identity, bootId }, true)).map.writtenCount;
  };
  assert.is(await open(live.bytes, tracked.identity.bootId), 12);
  assert.is(await open(live.bytes, "another boot"), 9);
  const other = live.bytes.slice();
  rewrite(other, { volumeId: "another volume" });
  assert.is(await open(other, tracked.identity.bootId), 9);
  assert.is(await open(live.bytes.slice().fill(0, 0, indexOffset), tracked.identity.bootId), 9);
});

test("a killed engine's live map is asked for: in another run folder, and back in the first one", async () => {
  const tracked = await new Tracked(someBlocks, 1).create();
  await tracked.store.activate();
  tracked.isActivated = true;
  tracked.mark({ first: 7, count: 9, plane: planes.written });
  const { durable, live } = tracked.files;
  // Killed, and started with another run folder in the same boot: the acknowledged write is not there.
  await rejection(
    ResidencyStore.open({ durable: new CrashFile(durable.bytes), live: new CrashFile() }, tracked.identity),
    LiveMapError,
  );
  // By force it goes on without it; afterwards the first live map is out of date, whatever its boot.
  const other = new CrashFile();
  const forced = await ResidencyStore.open({ durable, live: other }, tracked.identity, true);
  assert.is(forced.map.writtenCount, 0);
  forced.mark(100, 3, planes.written);
  await forced.checkpoint(() => Promise.resolve());
  await forced.close();
  const back = await ResidencyStore.open({ durable, live: new CrashFile(live.bytes) }, tracked.identity);
  assert.is(back.map.writtenCount, 3);
});

test("a hand-off that cannot be written down has not happened, whichever file failed and whoever asks", async () => {
  for (const name of ["live", "durable"] as const) {
    const tracked = await new Tracked(someBlocks, 1).create();
    tracked.files[name].failing = new Error("no space left");
    await rejection(tracked.store.activate(), Error);
    tracked.files[name].failing = undefined;
    for (const bootId of [tracked.identity.bootId, "another boot"]) {
      const { durable, live } = tracked.files;
      const files = { durable: new CrashFile(durable.bytes), live: new CrashFile(live.bytes) };
      const opened = await ResidencyStore.open(files, { ...tracked.identity, bootId });
      assert.is(opened.activated, false, `${name} failed, ${bootId}`);
    }
    await tracked.store.activate();
    assert.is(tracked.store.activated, true);
  }
});

test("a mark that could not be written counts once it is made again, though memory has it already", async () => {
  const whole = { first: pageBlocks, count: pageBlocks, plane: planes.written };
  const many = { first: pageBlocks - 9, count: pageBlocks + 20, plane: planes.crossed };
  for (const marking of [{ first: 7, count: 3, plane: planes.written }, whole, many]) {
    for (const writesLeft of [0, 1, 2]) {
      for (const kind of crashes) {
        const tracked = await new Tracked(someBlocks, 1).create();
        const { live } = tracked.files;
        const { writeNow } = CrashFile.prototype;
        let left = writesLeft;
        live.writeNow = (offset, data) => {
          if (left-- <= 0) throw new Error("no space left");
          writeNow.call(live, offset, data);
        };
        const mark = () => tracked.store.mark(marking.first, marking.count, marking.plane);
        try {
          mark();
        } catch {
          assert.throws(mark, /no space left/, "as long as it is so");
          assert.throws(() => tracked.store.catchUp(), /no space left/);
        }
        live.writeNow = writeNow;
        tracked.mark(marking);
        await tracked.checkpoint();
        await tracked.crash(kind);
      }
    }
  }
});

test("a checkpoint takes what was marked before it, not what is marked while the data is synced", async () => {
  const tracked = await new Tracked(someBlocks, 1).create();
  tracked.mark({ first: 0, count: 4, plane: planes.written });
  await tracked.checkpoint(() => {
    // Its data is not covered by the sync that runs.
    tracked.mark({ first: 4, count: 4, plane: planes.written });
    return Promise.resolve();
  });
  const durable = new CrashFile(tracked.files.durable.bytes);
  const files = { durable, live: new CrashFile() };
  const opened = await ResidencyStore.open(files, { ...tracked.identity, bootId: "later" });
  assert.is(opened.map.writtenCount, 4);
  assert.is(tracked.store.dirtyPageCount, 1, "the rest goes with the next checkpoint");
});

test.run();
