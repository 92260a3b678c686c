/** What is made of the maps of engines that do not run: their status, and the map of a disk that goes back. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { engineFiles } from "../../src/engine/config.ts";
import { isStoredWhole, type MapPiece, readWritten, seedMap } from "../../src/engine/failback-map.ts";
import { MapVersionError } from "../../src/engine/map-layout.ts";
import { planes } from "../../src/engine/residency.ts";
import { ResidencyStore } from "../../src/engine/residency-store.ts";
import { readStoredStatus } from "../../src/engine/stored-status.ts";
import { PreconditionError } from "../../src/lib/errors.ts";
import { bootId } from "../../src/lib/process-id.ts";
import * as assert from "uvu/assert";
import { tempFolder } from "../helpers/temp.ts";
import { attempt, attemptAsync, same } from "./expect.ts";
import { bitsOf, blockBytes, history, identityOf, live, MapCopy } from "./map-model.ts";
import { mutated } from "./mutation.ts";
import { type Target, target } from "./target.ts";

let made: { readonly state: string; readonly run: string } | undefined;

function folders() {
  if (made === undefined) {
    const folder = tempFolder("fuzz");
    made = { state: join(folder, "state"), run: join(folder, "run") };
    mkdirSync(made.state);
    mkdirSync(made.run);
  }
  return made;
}

const mapPath = () => join(folders().state, engineFiles.map);
const livePath = () => join(folders().run, engineFiles.liveMap);

/** Edits in the first pages of a map file that was closed in good order. */
const edits = fc.record({
  history: history.map((history) => ({ ...history, isClosed: true })),
  edit: mutated(fc.constant(null), () => new Uint8Array(200), {}),
  at: fc.constantFrom(0, 4096, 8192, 12_288, 20_000),
  isTouched: fc.boolean(),
  cutAt: fc.option(fc.nat(30_000), { freq: 4, nil: null }),
});

/** The difference that the edit makes to 200 zeroes, laid over the file. */
function overlaid(file: Uint8Array, at: number, edit: Uint8Array): Uint8Array {
  const copy = file.slice();
  edit.forEach((byte, index) => {
    if (at + index < copy.length) copy[at + index]! ^= byte;
  });
  return copy;
}

const stored = target({
  name: "map-stored",
  inputs: edits,
  runs: 150,
  async check({ history, edit: { bytes: edit }, at, isTouched, cutAt }) {
    const left = await live({ ...history, steps: [...history.steps, { kind: "activate" }] });
    const damaged = isTouched ? overlaid(left.durable, at, edit) : left.durable;
    const isCut = cutAt !== null && cutAt < damaged.length;
    const bytes = isCut ? damaged.slice(0, cutAt) : damaged;
    writeFileSync(mapPath(), bytes);
    const isSound = Buffer.compare(bytes, left.durable) === 0;
    const { sizeBytes } = identityOf(history);
    const outcome = attempt([PreconditionError, MapVersionError], () => {
      const pieces: MapPiece[] = [];
      for (let from = 0; from < sizeBytes;) {
        const piece = readWritten(folders(), from, 3);
        assert.ok(piece.toBytes > from && pieces.length < 100_000, "it gets on");
        pieces.push(piece);
        from = piece.toBytes;
      }
      return pieces;
    });
    const status = readStoredStatus(folders());
    if (status !== undefined) {
      const { residentBytes, writtenBytes } = status;
      assert.ok(residentBytes >= writtenBytes && writtenBytes >= 0, "counts that cannot be");
    }
    if (outcome.value === undefined) {
      assert.not.ok(isSound, "a sound map is refused");
      return "refused";
    }
    assert.ok(isStoredWhole(folders()));
    checkExtents(outcome.value, sizeBytes);
    if (isSound) {
      same(
        writtenBlocks(outcome.value, left.marked.length),
        left.marked.map((bits) => bits >> planes.written & 1),
        "",
      );
    }
    return "accepted";
  },
});

function checkExtents(pieces: readonly MapPiece[], sizeBytes: number): void {
  let end = 0;
  for (const [offset, length] of pieces.flatMap(({ extents }) => extents)) {
    assert.ok(offset >= end && length > 0 && offset + length <= sizeBytes, "extents that make no sense");
    end = offset + length;
  }
}

function writtenBlocks(pieces: readonly MapPiece[], blockCount: number): Uint8Array {
  const blocks = new Uint8Array(blockCount);
  for (const [offset, length] of pieces.flatMap(({ extents }) => extents)) {
    blocks.fill(1, offset / blockBytes, Math.ceil((offset + length) / blockBytes));
  }
  return blocks;
}

interface Piece {
  readonly blockCount: number;
  readonly runs: readonly (readonly [gap: number, length: number])[];
  /** What is done to one of its numbers. */
  readonly nudge: readonly [at: number, by: number] | null;
  readonly isReversed: boolean;
}

const piece: fc.Arbitrary<Piece> = fc.record({
  blockCount: fc.constantFrom(1, 100, 20_000),
  runs: fc.array(fc.tuple(fc.nat(30), fc.integer({ min: 1, max: 30 })), { maxLength: 5 }),
  nudge: fc.oneof(
    fc.constant(null),
    fc.tuple(
      fc.nat(11),
      fc.constantFrom(-blockBytes, -512, -1, 1, 512, blockBytes, 2 ** 30, -(2 ** 30), NaN),
    ),
  ),
  isReversed: fc.nat(5).map((number) => number === 0),
});

function pieceOf({ blockCount, runs, nudge, isReversed }: Piece): MapPiece {
  const { sizeBytes } = identityOf({ blockCount, volumeId: "" });
  let at = 0;
  const numbers = [0, sizeBytes];
  for (const [gap, length] of runs) {
    const offset = Math.min((at + gap) * blockBytes, sizeBytes);
    const end = Math.min((at + gap + length) * blockBytes, sizeBytes);
    if (end === offset) break;
    numbers.push(offset, end - offset);
    at += gap + length;
  }
  if (nudge !== null) numbers[nudge[0] % numbers.length]! += nudge[1];
  const [fromBytes, toBytes, ...rest] = numbers as [number, number, ...number[]];
  const extents = Array.from(
    { length: rest.length / 2 },
    (_, i) => [rest[2 * i]!, rest[2 * i + 1]!] as const,
  );
  return { fromBytes, toBytes, extents: isReversed ? extents.reverse() : extents };
}

const seeds = target<Piece>({
  name: "map-seed",
  inputs: piece,
  // It began before the disk.
  regressions: [{ blockCount: 1, runs: [], nudge: [0, -(2 ** 30)], isReversed: false }],
  runs: 80,
  async check(input) {
    for (const path of [mapPath(), livePath()]) rmSync(path, { force: true });
    const { bootId: _, ...volume } = identityOf({ ...input, volumeId: "volume-a" });
    const given = pieceOf(input);
    const { error } = await attemptAsync([PreconditionError], () => seedMap(folders(), volume, given));
    if (error !== undefined) {
      assert.ok(input.nudge !== null || input.isReversed, `an honest piece is refused: ${error.message}`);
      return "refused";
    }
    given.extents.reduce((end, [offset, length]) => {
      assert.ok(offset >= end && length >= 0, "extents that are out of order are taken");
      return offset + length;
    }, given.fromBytes);
    const files = {
      durable: new MapCopy(readFileSync(mapPath())),
      live: new MapCopy(readFileSync(livePath())),
    };
    const bits = bitsOf(await ResidencyStore.open(files, { ...volume, bootId: bootId() }));
    const block = (bytes: number) => Math.ceil(bytes / blockBytes);
    const expected = new Uint8Array(bits.length).fill(1, block(given.fromBytes), block(given.toBytes));
    for (const [offset, length] of given.extents) expected.fill(0, block(offset), block(offset + length));
    same(bits, expected, "the new map");
    return "accepted";
  },
});

export const storedMapTargets: readonly Target[] = [stored, seeds];
