/** What the maps on disk tell of a volume whose engine does not run. Nothing is changed. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { bootId } from "../lib/process-id.ts";
import { engineFiles } from "./config.ts";
import type { EngineFolders } from "./engine.ts";
import { blockCountOf, indexOffset, isPageSound, pageCountOf, pageOffset } from "./map-layout.ts";
import { type MapFile, openMapFile } from "./map-file.ts";
import { indexBits, pageBlocks, pageWords, ResidencyMap, validIndexBits } from "./residency.ts";
import { MapError, readHeader } from "./residency-store.ts";

export interface StoredStatus {
  readonly activated: boolean;
  readonly residentBytes: number;
  readonly writtenBytes: number;
}

/** Undefined if there is no map, or none that can be used. */
export function readStoredStatus(folders: EngineFolders): StoredStatus | undefined {
  const durable = read(join(folders.state, engineFiles.map), () => true, false);
  const live = read(join(folders.run, engineFiles.liveMap), (boot) => boot === bootId(), true);
  // The live map knows more, except for pages that are only in the durable one.
  if (durable === undefined || live === undefined) return durable;
  return {
    activated: durable.activated || live.activated,
    residentBytes: Math.max(durable.residentBytes, live.residentBytes),
    writtenBytes: Math.max(durable.writtenBytes, live.writtenBytes),
  };
}

function read(
  path: string,
  isCurrent: (bootId: string) => boolean,
  isLive: boolean,
): StoredStatus | undefined {
  if (!existsSync(path)) return undefined;
  const file = openMapFile(path);
  try {
    const header = readHeader(file);
    if (header === undefined || !isCurrent(header.bootId)) return undefined;
    const map = readMap(file, header, isLive);
    for (let page = 0; page < map.pageCount; page++) {
      if (map.index[page] & (indexBits.hasPage | indexBits.crossed | indexBits.written)) map.recount(page);
    }
    const bytes = (blocks: number) => Math.min(header.sizeBytes, blocks * header.blockBytes);
    const { residentCount, writtenCount } = map;
    return {
      activated: header.activated,
      residentBytes: bytes(residentCount),
      writtenBytes: bytes(writtenCount),
    };
  } catch {
    return undefined;
  } finally {
    file.close();
  }
}

/**
 * The map in a file, not counted; it is only read. Throws MapError if it is damaged: here, or where a page of it
 * is first read.
 */
export function readMap(
  file: MapFile,
  geometry: { readonly sizeBytes: number; readonly blockBytes: number },
  isLive = false,
): ResidencyMap {
  const index = new Uint8Array(pageCountOf(geometry));
  file.read(indexOffset, index);
  if (!isLive && index.some((bits) => bits & ~validIndexBits)) throw new MapError("its index is damaged");
  const unused = () => {
    throw new Error("a stored map is only read");
  };
  const blockCount = blockCountOf(geometry);
  return new ResidencyMap(
    blockCount,
    { pageChanged: unused, indexChanged: unused },
    (page) => {
      const words = new Uint32Array(pageWords);
      file.read(pageOffset(geometry, page), new Uint8Array(words.buffer));
      // In the live file some pages are not there, but in the durable one only.
      if (!isLive && !isPageSound(words, index[page], blockCount - page * pageBlocks)) {
        throw new MapError(`its page ${page} is damaged`);
      }
      return words;
    },
    index.map((bits) => bits & validIndexBits),
  );
}
