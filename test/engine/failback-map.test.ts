/** What was written here, and the map of the disk that goes back, made of it. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { engineFiles } from "../../src/engine/config.ts";
import { isStoredWhole, type MapPiece, readWritten, seedMap } from "../../src/engine/failback-map.ts";
import { openMapFile } from "../../src/engine/map-file.ts";
import { planes, residency } from "../../src/engine/residency.ts";
import { ResidencyStore } from "../../src/engine/residency-store.ts";
import { readStoredStatus } from "../../src/engine/stored-status.ts";
import { bootId } from "../../src/lib/process-id.ts";
import { PreconditionError } from "../../src/lib/errors.ts";
import { rejection } from "../helpers/rejection.ts";
import { tempFolder } from "../helpers/temp.ts";

const blockBytes = 4096;
const volumeId = "volume";

function folders() {
  const folder = tempFolder("e");
  const made = { state: join(folder, "state"), run: join(folder, "run") };
  for (const path of Object.values(made)) mkdirSync(path);
  return made;
}

type Folders = ReturnType<typeof folders>;
type Marks = readonly (readonly [first: number, count: number])[];

const filesOf = ({ state, run }: Folders) => ({
  durable: openMapFile(join(state, engineFiles.map)),
  live: openMapFile(join(run, engineFiles.liveMap)),
});

/** A volume as its engine leaves it, after the hand-off. */
async function volume(
  sizeBytes: number,
  marks: { readonly crossed?: Marks; readonly written?: Marks } = {},
): Promise<Folders> {
  const at = folders();
  const identity = { sizeBytes, blockBytes, volumeId, bootId: bootId(), localZero: true };
  const store = await ResidencyStore.create(filesOf(at), identity);
  await store.activate();
  for (const [first, count] of marks.crossed ?? []) store.mark(first, count, planes.crossed);
  for (const [first, count] of marks.written ?? []) store.mark(first, count, planes.written);
  await store.checkpoint(() => Promise.resolve());
  await store.close();
  return at;
}

function allWritten(at: Folders, sizeBytes: number, maxExtents: number): MapPiece[] {
  const pieces: MapPiece[] = [];
  for (let from = 0; from < sizeBytes;) {
    const piece = readWritten(at, from, maxExtents);
    assert.ok(piece.toBytes > from, "it gets on");
    pieces.push(piece);
    from = piece.toBytes;
  }
  return pieces;
}

async function seeded(sizeBytes: number, pieces: readonly MapPiece[]): Promise<Folders> {
  const at = folders();
  for (const piece of pieces) await seedMap(at, { sizeBytes, blockBytes, volumeId }, piece);
  return at;
}

/** The state of each block as the engine will find it. */
async function statesOf(at: Folders, sizeBytes: number): Promise<number[]> {
  const identity = { sizeBytes, blockBytes, volumeId, bootId: bootId() };
  const store = await ResidencyStore.open(filesOf(at), identity);
  assert.is(store.activated, false);
  assert.is(store.localZero, false, "the disk has content where the map says absent");
  const states = Array.from({ length: store.map.blockCount }, (_, block) => store.map.stateOf(block));
  await store.close();
  return states;
}

function refusal(at: Folders, sizeBytes: number, piece: MapPiece, name = volumeId) {
  return rejection(seedMap(at, { sizeBytes, blockBytes, volumeId: name }, piece), PreconditionError);
}

const test = suite("engine: maps of a disk that goes back");

test("what was written becomes absent, all else resident, whatever the pieces and repetitions", async () => {
  const blockCount = 40_000;
  const ranges = fc.array(
    fc.tuple(fc.nat(blockCount - 1), fc.integer({ min: 1, max: 17_000 })).map(([first, count]) =>
      [first, Math.min(count, blockCount - first)] as const
    ),
    { maxLength: 12 },
  );
  const sizes = fc.constantFrom(blockCount * blockBytes, blockCount * blockBytes - 1536);
  await fc.assert(
    fc.asyncProperty(
      ranges,
      ranges,
      sizes,
      fc.integer({ min: 1, max: 4 }),
      async (crossed, written, size, max) => {
        const at = await volume(size, { crossed, written });
        const pieces = allWritten(at, size, max);
        const back = await seeded(size, [...pieces, ...pieces.slice(0, 1)]);
        const expected = new Array<number>(blockCount).fill(residency.fetched);
        for (const [first, count] of written) expected.fill(residency.absent, first, first + count);
        assert.equal(await statesOf(back, size), expected);
      },
    ),
    { numRuns: 15 },
  );
});

test("where marks were lost with the power, what says fetched goes back as well, also when that is long ago", async () => {
  const sizeBytes = 10 * blockBytes;
  const identity = { sizeBytes, blockBytes, volumeId };
  const at = await volume(sizeBytes, { crossed: [[2, 3]], written: [[7, 1]] });
  assert.equal(readWritten(at, 0, 10).extents, [[7 * blockBytes, blockBytes]]);
  // Killed in one boot, found in another one.
  const killed = await ResidencyStore.open(filesOf(at), { ...identity, bootId: "before" });
  assert.not.ok(isStoredWhole(at));
  assert.throws(() => readWritten(at, 0, 10), /good order/);
  killed.mark(9, 1, planes.written);
  for (let round = 0; round < 2; round++) {
    const store = await ResidencyStore.open(filesOf(at), { ...identity, bootId: bootId() });
    await store.close();
  }
  assert.ok(isStoredWhole(at));
  const extents = [[2 * blockBytes, 3 * blockBytes], [7 * blockBytes, blockBytes]];
  assert.equal(readWritten(at, 0, 10).extents, extents);
});

test("a map that has nothing to say of the hand-off is not asked", async () => {
  const at = folders();
  assert.not.ok(isStoredWhole(at));
  await seedMap(at, { sizeBytes: 8192, blockBytes, volumeId }, { fromBytes: 0, toBytes: 8192, extents: [] });
  assert.not.ok(isStoredWhole(at), "not handed over");
  assert.throws(() => readWritten(at, 0, 10), /good order/);
  assert.is(readStoredStatus(at)!.residentBytes, 8192);
});

test("seedMap() refuses what makes no sense, another volume's map, and one that is in use", async () => {
  const sizeBytes = 8 * blockBytes - 512;
  const piece = (fromBytes: number, toBytes: number, ...extents: [number, number][]) =>
    refusal(folders(), sizeBytes, { fromBytes, toBytes, extents });
  assert.match((await piece(0, sizeBytes, [4096, 100])).message, /begins or ends at 4196/);
  assert.match((await piece(0, sizeBytes, [8192, 4096], [4096, 4096])).message, /not in order/);
  assert.match((await piece(8192, sizeBytes, [4096, 4096])).message, /not in order/);
  assert.match((await piece(0, 4096, [0, 8192])).message, /not in order/);
  assert.match((await piece(0, 8 * blockBytes)).message, /begins or ends/);

  const whole = { fromBytes: 0, toBytes: 8192, extents: [] };
  const other = await seeded(8192, [whole]);
  assert.match((await refusal(other, 8192, whole, "other")).message, /belongs to volume/);
  const inUse = await volume(8192);
  assert.match((await refusal(inUse, 8192, whole)).message, /in use/);
});

test.run();
