/** Residency maps: headers, and what a store makes of two files in any state. */
import fc from "fast-check";
import {
  decodeHeader,
  encodeHeader,
  headerBytes,
  indexOffset,
  type MapHeader,
  MapVersionError,
  newestHeader,
  pageCountOf,
  slotBytes,
} from "../../src/engine/map-layout.ts";
import { planes, validIndexBits } from "../../src/engine/residency.ts";
import { LiveMapError, MapError, readHeader, ResidencyStore } from "../../src/engine/residency-store.ts";
import { createHash } from "node:crypto";
import * as assert from "uvu/assert";
import { attempt, attemptAsync, same } from "./expect.ts";
import { bitsOf, type History, history, identityOf, type Left, live, MapCopy } from "./map-model.ts";
import { joined, type Mutated, mutated } from "./mutation.ts";
import { type Target, target } from "./target.ts";

const ascii = fc.stringMatching(/^[0-9a-z-]{0,64}$/);
const count = fc.oneof(fc.nat(100), fc.maxSafeNat());
const header: fc.Arbitrary<MapHeader> = fc.record({
  sizeBytes: fc.integer({ min: 1, max: 2 ** 31 }).map((sectors) => sectors * 512),
  blockBytes: fc.integer({ min: 12, max: 20 }).map((exponent) => 2 ** exponent),
  volumeId: ascii,
  bootId: ascii,
  generation: ascii,
  sequence: count,
  activated: fc.boolean(),
  localZero: fc.boolean(),
  clean: fc.boolean(),
  missesWrites: fc.boolean(),
  syncFailed: fc.boolean(),
  counters: fc.record({
    demandBytes: count,
    readaheadBytes: count,
    syncBytes: count,
    refetchedBytes: count,
    holeBytes: count,
  }),
});

const headers = target<Mutated<MapHeader>>({
  name: "map-header",
  inputs: mutated(header, encodeHeader),
  runs: 2000,
  check({ bytes, value, isDamaged }) {
    const found = decodeHeader(bytes);
    // What was put behind it does not count.
    const isWhole = bytes.length >= headerBytes && isPrefix(encodeHeader(value), bytes);
    assert.is(
      found !== undefined,
      isWhole,
      isDamaged ? "damage is not noticed" : "a sound header is refused",
    );
    if (found === undefined) return "refused";
    same(found, value, "the header");
    return "accepted";
  },
});

const isPrefix = (start: Uint8Array, bytes: Uint8Array) => start.every((byte, at) => bytes[at] === byte);

/** Headers with a right checksum that say what no engine writes. */
const nonsense = target<Mutated<MapHeader>>({
  name: "map-header-content",
  inputs: mutated(header, encodeHeader, {
    mend(bytes) {
      if (bytes.length < headerBytes) return bytes;
      const covered = bytes.subarray(0, headerBytes - 32);
      return joined(covered, createHash("sha256").update(covered).digest(), bytes.subarray(headerBytes));
    },
  }),
  // No bytes in a block; more bytes than a number holds.
  runs: 2000,
  check({ bytes }) {
    const { value: found, error } = attempt([MapVersionError], () => decodeHeader(bytes));
    if (error !== undefined || found === undefined) return "refused";
    const { sizeBytes, blockBytes, sequence } = found;
    assert.ok(Number.isSafeInteger(sizeBytes) && sizeBytes > 0, `a disk of ${sizeBytes} bytes`);
    assert.ok(Number.isInteger(Math.log2(blockBytes)), `blocks of ${blockBytes} bytes`);
    assert.ok(Number.isSafeInteger(sequence), "a sequence number that cannot be counted up");
    for (const count of Object.values(found.counters)) assert.ok(Number.isSafeInteger(count));
    same(decodeHeader(encodeHeader(found)), found, "written again");
    return "accepted";
  },
});

const slots = target<{ older: MapHeader; newer: Mutated<MapHeader>; isSwapped: boolean }>({
  name: "map-slots",
  inputs: fc.record({ older: header, newer: mutated(header, encodeHeader), isSwapped: fc.boolean() }),
  runs: 1500,
  check({ older, newer: { bytes, value, isDamaged }, isSwapped }) {
    const file = new MapCopy();
    file.writeNow(isSwapped ? slotBytes : 0, encodeHeader(older));
    file.writeNow(isSwapped ? 0 : slotBytes, bytes.subarray(0, headerBytes));
    const isWhole = isPrefix(encodeHeader(value), bytes);
    const expected = isWhole && value.sequence > older.sequence ? value : older;
    if (isWhole && value.sequence === older.sequence) return "accepted";
    same(readHeader(file), expected, "the newest sound header");
    same(newestHeader([bytes, encodeHeader(older)]), expected, "the newest sound header");
    return isDamaged ? "refused" : "accepted";
  },
});

// --- whole maps ---

interface Damage {
  readonly file: "durable" | "live" | "both";
  readonly where: "headers" | "index" | "pages";
  readonly at: number;
  readonly byte: number;
  readonly kind: "set" | "truncate";
}

interface Found {
  readonly history: History;
  readonly other: History;
  /** What is there instead of the live map, and of the durable one. */
  readonly live: "its own" | "none" | "of another boot" | "of another volume";
  readonly durable: "its own" | "older" | "of another volume";
  readonly damage: readonly Damage[];
  readonly mayLose: boolean;
}

const mostly = <T>(usual: T, ...others: T[]) =>
  fc.oneof({ weight: 3, arbitrary: fc.constant(usual) }, {
    weight: 1,
    arbitrary: fc.constantFrom(...others),
  });

const found: fc.Arbitrary<Found> = fc.record({
  history,
  other: history.map((history) => ({ ...history, volumeId: "volume-b" })),
  live: mostly<Found["live"]>("its own", "none", "of another boot", "of another volume"),
  durable: mostly<Found["durable"]>("its own", "older", "of another volume"),
  damage: fc.oneof(
    fc.constant<Damage[]>([]),
    fc.array(
      fc.record({
        file: fc.constantFrom("durable" as const, "live" as const, "both" as const),
        where: fc.constantFrom("headers" as const, "index" as const, "pages" as const),
        at: fc.nat(1 << 16),
        byte: fc.oneof(fc.constantFrom(0, 1, 7, 8, 0xff), fc.nat(255)),
        kind: fc.constantFrom("set" as const, "set" as const, "truncate" as const),
      }),
      { minLength: 1, maxLength: 3 },
    ),
  ),
  mayLose: fc.boolean(),
});

function damaged(bytes: Uint8Array, { where, at, byte, kind }: Damage, history: History): Uint8Array {
  const indexEnd = indexOffset + pageCountOf(identityOf(history));
  const pagesAt = indexOffset + slotBytes;
  const ranges = {
    headers: [0, indexOffset],
    index: [indexOffset, indexEnd],
    pages: [pagesAt, bytes.length],
  };
  const [from, to] = ranges[where] as [number, number];
  const place = from + at % Math.max(1, to - from);
  if (place >= bytes.length) return bytes;
  const copy = bytes.slice(0, kind === "truncate" ? place : bytes.length);
  if (kind === "set") copy[place] = byte;
  return copy;
}

/** The files as they are found; `isSound`: nothing is wrong with them. */
function filesOf(found: Found, own: Left, other: Left) {
  const { history, damage } = found;
  const durables = {
    "its own": own.durable,
    "older": own.older.at(-1) ?? own.durable,
    "of another volume": other.durable,
  };
  const lives = {
    "its own": own.live,
    "none": new Uint8Array(),
    "of another boot": withBoot(own.live),
    "of another volume": other.live,
  };
  let durable = durables[found.durable];
  let live = lives[found.live];
  for (const each of damage) {
    if (each.file !== "live") durable = damaged(durable, each, history);
    if (each.file !== "durable") live = damaged(live, each, history);
  }
  return { durable: new MapCopy(durable), live: new MapCopy(live) };
}

function withBoot(live: Uint8Array): Uint8Array {
  const copy = new MapCopy(live);
  const header = readHeader(copy);
  if (header === undefined) return live;
  for (const sequence of [header.sequence, header.sequence + 1]) {
    copy.writeNow((sequence % 2) * slotBytes, encodeHeader({ ...header, sequence, bootId: "boot-0" }));
  }
  return copy.bytes;
}

const aloneWith = (steps: History["steps"], at: number, byte: number): Found => ({
  history: { volumeId: "volume-a", blockCount: 100, steps, isClosed: false },
  other: { volumeId: "volume-b", blockCount: 1, steps: [], isClosed: false },
  live: "none",
  durable: "its own",
  damage: [{ file: "durable", where: "pages", at, byte, kind: byte === 0 ? "truncate" : "set" }],
  mayLose: false,
});

/** Bits of blocks past the disk's end were counted for others; a page that was lost with the file's end was empty. */
const brokenPages: readonly Found[] = [20_493, 0].map((at) =>
  aloneWith(
    [{ kind: "mark", first: 0, count: 1, plane: planes.crossed }, { kind: "checkpoint" }],
    at,
    at === 0 ? 0 : 255,
  )
);

const stores = target<Found>({
  name: "map-store",
  inputs: found,
  regressions: brokenPages,
  runs: 250,
  async check(found) {
    const { history, damage } = found;
    const own = await live(history);
    const other = await live(found.other);
    const files = filesOf(found, own, other);
    const identity = identityOf(history);
    const index = files.durable.bytes.subarray(indexOffset, indexOffset + pageCountOf(identity));
    const hasUnknownBits = index.some((bits) => (bits & ~validIndexBits) !== 0);
    const { value: store, error } = await attemptAsync(
      [MapError, LiveMapError, MapVersionError],
      () => ResidencyStore.open(files, identity, found.mayLose),
    );
    const isIntact = damage.length === 0;
    if (found.durable === "of another volume") {
      assert.ok(store === undefined, "another volume's map is believed");
      return "refused";
    }
    if (store === undefined) {
      // Without its live map, where the engine was killed in this boot.
      const isLost = error instanceof LiveMapError && found.live !== "its own" && !found.mayLose;
      assert.ok(!isIntact || isLost, `a sound map is refused: ${error}`);
      return "refused";
    }
    if (found.live === "none") assert.not.ok(hasUnknownBits, "an index with bits that mean nothing is used");
    const bits = bitsOf(store);
    if (isIntact) checkContent(bits, found, own);
    checkCounts(store, bits);
    await checkUse(store, bits, files, identity);
    // An older durable map under a newer live one is not what a crash leaves, but a file that somebody put back.
    if (isIntact && (found.durable === "its own" || found.live !== "its own")) {
      await checkDurable(store, files, identity);
    }
    return "accepted";
  },
});

function checkContent(bits: Uint8Array, found: Found, own: Left): void {
  const isLive = found.live === "its own";
  // What only the map of another boot knows went with the power: its data may not be there.
  const atMost = isLive || found.durable === "older" ? own.marked : own.checkpointed;
  const atLeast = isLive ? own.marked : found.durable === "older" ? undefined : own.checkpointed;
  for (let block = 0; block < bits.length; block++) {
    assert.is(bits[block]! & ~atMost[block]!, 0, "a block is said to be here that never was");
    if (atLeast !== undefined) {
      assert.is(atLeast[block]! & ~bits[block]!, 0, "a block that is here is forgotten");
    }
  }
}

function checkCounts({ map }: ResidencyStore, bits: Uint8Array): void {
  const withBits = (wanted: number) => bits.filter((each) => (each & wanted) === wanted).length;
  assert.is(map.crossedCount, withBits(1 << planes.crossed), "blocks that crossed");
  assert.is(map.writtenCount, withBits(1 << planes.written), "blocks that were written");
  assert.is(map.bothCount, withBits(3), "blocks that crossed and were written");
}

type Files = { readonly durable: MapCopy; readonly live: MapCopy };

/** What is marked from now on is marked, nothing else is, and all of it is there at the next start. */
async function checkUse(
  store: ResidencyStore,
  bits: Uint8Array,
  files: Files,
  identity: ReturnType<typeof identityOf>,
) {
  const expected = bits.slice();
  const step = Math.max(1, Math.floor(bits.length / 7));
  for (let first = 0; first + 1 < bits.length; first += step) {
    const plane = first % 2 === 0 ? planes.crossed : planes.written;
    const length = Math.min(step - 1, bits.length - first - 1);
    if (length <= 0) break;
    store.mark(first, length, plane);
    for (let block = first; block < first + length; block++) expected[block]! |= 1 << plane;
  }
  same(bitsOf(store), expected, "the map, used");
  await store.checkpoint(() => Promise.resolve());
  const alive = await ResidencyStore.open(
    { durable: new MapCopy(files.durable.bytes), live: new MapCopy(files.live.bytes) },
    identity,
  );
  same(bitsOf(alive), expected, "the live map, read again");
}

/** After a checkpoint the durable map alone says all. */
async function checkDurable(
  store: ResidencyStore,
  { durable }: Files,
  identity: ReturnType<typeof identityOf>,
) {
  const files = { durable: new MapCopy(durable.bytes), live: new MapCopy() };
  const again = await ResidencyStore.open(files, { ...identity, bootId: "boot-2" });
  same(bitsOf(again), bitsOf(store), "the durable map, read again");
}

export const mapTargets: readonly Target[] = [headers, nonsense, slots, stores];
