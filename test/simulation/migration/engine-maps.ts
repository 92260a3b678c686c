/** The maps of an engine's model, and what the roles read and make of them (engine/mod.ts). */
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, writeSync } from "./node-fs.ts";
import { current, world } from "./world.ts";

export interface EngineFolders {
  readonly state: string;
  readonly run: string;
}

export type Block = "absent" | "crossed" | "written";

/** What is in a map's file. */
export interface StoredMap {
  readonly activated: boolean;
  readonly blocks: Block[];
  readonly clean: boolean;
  readonly bootId: string;
  readonly generation: string;
}

export const mapPath = ({ state }: EngineFolders) => `${state}/residency.map`;
export const livePath = ({ run }: EngineFolders) => `${run}/live.map`;

export function later(durable: Block, live: Block | undefined): Block {
  return live === undefined || live === "absent" ? durable : live;
}

export function readMap(path: string): StoredMap | undefined {
  try {
    return JSON.parse(readFileSync(path, "utf8") as string);
  } catch {
    return undefined;
  }
}

export function liveMap(folders: EngineFolders, durable: StoredMap): StoredMap | undefined {
  const live = existsSync(livePath(folders)) ? readMap(livePath(folders)) : undefined;
  const isOfIt = live?.bootId === current().host.bootId && live.generation === durable.generation;
  return isOfIt ? live : undefined;
}

// --- engine/mod.ts, as far as the roles read maps ---

export function readStoredStatus(folders: EngineFolders) {
  const durable = existsSync(mapPath(folders)) ? readMap(mapPath(folders)) : undefined;
  if (durable === undefined) return undefined;
  const live = liveMap(folders, durable);
  const blocks = durable.blocks.map((block, at) => later(block, live?.blocks[at]));
  const blockBytes = 4096;
  return {
    activated: durable.activated || live?.activated === true,
    residentBytes: blocks.filter((block) => block !== "absent").length * blockBytes,
    writtenBytes: blocks.filter((block) => block === "written").length * blockBytes,
  };
}

export function isStoredWhole(folders: EngineFolders): boolean {
  const map = existsSync(mapPath(folders)) ? readMap(mapPath(folders)) : undefined;
  return map !== undefined && map.activated && map.clean;
}

export function readWritten(folders: EngineFolders, fromBytes: number) {
  const { blocks } = readMap(mapPath(folders))!;
  const all = blocks.flatMap((block, at) => block === "written" ? [[at * 4096, 4096] as const] : []);
  return { fromBytes, toBytes: blocks.length * 4096, extents: all.filter(([offset]) => offset >= fromBytes) };
}

interface Piece {
  readonly fromBytes: number;
  readonly toBytes: number;
  readonly extents: readonly (readonly [number, number])[];
}

export async function seedMap(
  folders: EngineFolders,
  { sizeBytes, blockBytes }: { readonly sizeBytes: number; readonly blockBytes: number },
  { extents }: Piece,
): Promise<void> {
  await world().sleep(5);
  const blocks = Array.from(
    { length: sizeBytes / blockBytes },
    (_, at): Block =>
      extents.some(([offset, length]) => at * blockBytes >= offset && at * blockBytes < offset + length)
        ? "absent"
        : "crossed",
  );
  const { host } = current();
  const map: StoredMap = {
    activated: false,
    blocks,
    clean: true,
    bootId: host.bootId,
    generation: world().text(6),
  };
  const descriptor = openSync(mapPath(folders), "w", 0o600);
  writeSync(descriptor, JSON.stringify(map));
  fsyncSync(descriptor);
  closeSync(descriptor);
}
