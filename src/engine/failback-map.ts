/**
 * The residency map where a disk goes back: what the stopped engine of one direction knows becomes the map of
 * the other one.
 *
 * | a block of the volume was | is good at           | in the new map |
 * |---------------------------|----------------------|----------------|
 * | never here (absent)       | the old source only  | crossed        |
 * | fetched, not written      | both                 | crossed        |
 * | written                   | the old destination  | absent         |
 *
 * Where marks were lost once (`missesWrites`), what says fetched may have been written, and goes back as well.
 */
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { PreconditionError } from "../lib/errors.ts";
import { tryLock } from "../lib/libc.ts";
import { bootId } from "../lib/process-id.ts";
import { engineFiles } from "./config.ts";
import type { EngineFolders } from "./engine.ts";
import { openMapFile } from "./map-file.ts";
import type { Geometry } from "./map-layout.ts";
import { planes, residency, type ResidencyMap } from "./residency.ts";
import { MapError, readHeader, ResidencyStore, type StoreFiles } from "./residency-store.ts";
import { readMap } from "./stored-status.ts";

/** In bytes; whole blocks of the volume, the last one of a disk possibly short. */
export type Extent = readonly [offsetBytes: number, lengthBytes: number];

/** What is to be brought of [fromBytes, toBytes); in order, without overlap. */
export interface MapPiece {
  readonly fromBytes: number;
  readonly toBytes: number;
  readonly extents: readonly Extent[];
}

/** Looked at in one call at most, so that it does not hold the process for long. */
const maxBlocks = 16_384 * 4_096;

/** Whether the volume's engine has stopped in good order after the hand-off: the durable map says all. */
export function isStoredWhole({ state }: EngineFolders): boolean {
  const path = join(state, engineFiles.map);
  if (!existsSync(path)) return false;
  const file = openMapFile(path);
  try {
    const header = readHeader(file);
    return header !== undefined && header.activated && header.clean;
  } finally {
    file.close();
  }
}

/**
 * What was written here, from `fromBytes` on: at most `maxExtents`, up to `toBytes`, which is the disk's size at
 * the end. Only of a volume whose engine has stopped in good order and whose map is sound; throws
 * PreconditionError otherwise.
 */
export function readWritten({ state }: EngineFolders, fromBytes: number, maxExtents: number): MapPiece {
  const file = openMapFile(join(state, engineFiles.map));
  try {
    const header = readHeader(file);
    if (header === undefined || !header.activated || !header.clean) {
      throw new PreconditionError(`the engine of ${state} did not stop in good order`);
    }
    const map = readMap(file, header);
    const goesBack = (state: number) =>
      state === residency.written || (state === residency.fetched && header.missesWrites);
    return writtenOf(map, header, fromBytes, maxExtents, goesBack);
  } catch (error) {
    if (!(error instanceof MapError)) throw error;
    throw new PreconditionError(`the residency map in ${state} cannot be used: ${error.message}`);
  } finally {
    file.close();
  }
}

function writtenOf(
  map: ResidencyMap,
  { sizeBytes, blockBytes }: Geometry,
  fromBytes: number,
  maxExtents: number,
  goesBack: (state: number) => boolean,
): MapPiece {
  const bytesAt = (block: number) => Math.min(sizeBytes, block * blockBytes);
  const first = Math.ceil(fromBytes / blockBytes);
  const extents: [number, number][] = [];
  let end = first;
  for (const run of map.runs(first, Math.min(maxBlocks, map.blockCount - first))) {
    if (goesBack(run.state)) {
      const offset = bytesAt(run.first);
      const length = bytesAt(run.first + run.count) - offset;
      const last = extents.at(-1);
      if (last !== undefined && last[0] + last[1] === offset) last[1] += length;
      else if (extents.length === maxExtents) break;
      else extents.push([offset, length]);
    }
    end = run.first + run.count;
  }
  return { fromBytes, toBytes: bytesAt(end), extents };
}

/**
 * Marks a part of a new volume's map: everything but the piece's extents is resident. The map is made if it is
 * not there; durable when this resolves, and can be repeated. Throws PreconditionError if the map is in use, or
 * the piece makes no sense for it.
 */
export async function seedMap(
  folders: EngineFolders,
  volume: Geometry & { readonly volumeId: string },
  piece: MapPiece,
): Promise<void> {
  const kept = keptOf(volume, piece);
  const path = join(folders.state, engineFiles.map);
  const durable = openMapFile(path);
  const live = openMapFile(join(folders.run, engineFiles.liveMap));
  let store: ResidencyStore;
  try {
    if (!tryLock(durable.descriptor)) throw new PreconditionError(`an engine holds ${path}`);
    store = await openSeeded({ durable, live }, volume, statSync(path).size === 0);
    if (store.activated) throw new PreconditionError(`${path} is in use since the hand-off`);
    for (const [first, count] of kept) store.mark(first, count, planes.crossed);
    await store.checkpoint(() => Promise.resolve());
  } catch (error) {
    durable.close();
    live.close();
    throw error;
  }
  await store.close();
}

async function openSeeded(
  files: StoreFiles,
  volume: Geometry & { readonly volumeId: string },
  isNew: boolean,
): Promise<ResidencyStore> {
  const identity = { ...volume, bootId: bootId() };
  if (isNew) files.live.clear();
  try {
    return isNew
      ? await ResidencyStore.create(files, { ...identity, localZero: false })
      : await ResidencyStore.open(files, identity);
  } catch (error) {
    if (!(error instanceof MapError)) throw error;
    throw new PreconditionError(`the residency map of ${volume.volumeId} cannot be used: ${error.message}`);
  }
}

/** Blocks of the piece that are not in its extents, as [first, count]. */
function keptOf({ sizeBytes, blockBytes }: Geometry, { fromBytes, toBytes, extents }: MapPiece) {
  const block = (bytes: number) => {
    if (bytes % blockBytes === 0 && bytes >= 0 && bytes < sizeBytes) return bytes / blockBytes;
    if (bytes === sizeBytes) return Math.ceil(sizeBytes / blockBytes);
    throw new PreconditionError(`no block of the volume begins or ends at ${bytes}`);
  };
  const kept: [first: number, count: number][] = [];
  let at = block(fromBytes);
  for (const [offset, length] of [...extents, [toBytes, 0] as const]) {
    const first = block(offset);
    if (first < at || offset + length > toBytes) {
      throw new PreconditionError(`extents of a map that are not in order, at ${offset}`);
    }
    if (first > at) kept.push([at, first - at]);
    at = block(offset + length);
  }
  return kept;
}
