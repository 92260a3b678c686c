/**
 * How a residency map lies in a file. Pure.
 *
 *     0      header slot A (512 bytes used of 4096)
 *     4096   header slot B
 *     8192   index, one byte a page, rounded up to 4096
 *     …      pages, 4096 bytes each at index end + page × 4096; those without `hasPage` are holes
 *
 * The header is written to the slots in turn; the valid one with the higher sequence number counts, so that
 * a header torn by a power failure leaves the one before. All numbers are little-endian.
 */
import { createHash } from "node:crypto";
import { indexBits, pageBlocks, pageBytes, validIndexBits } from "./residency.ts";

export const headerBytes = 512;
export const slotBytes = 4096;
const magic = "dlsmmap\n";
export const layoutVersion = 1;
const checksumAt = headerBytes - 32;

export interface Geometry {
  readonly sizeBytes: number;
  readonly blockBytes: number;
}

export interface Counters {
  /** Bytes that came over the network because a request waited for them, ahead of one, and in the background. */
  demandBytes: number;
  readaheadBytes: number;
  syncBytes: number;
  /** Bytes that came over the network a second time; 0 unless the local disk refused to keep them. */
  refetchedBytes: number;
  /** Bytes known to be zero on the source, so never moved. */
  holeBytes: number;
}

export interface MapHeader extends Geometry {
  /** Names the migration and disk the map belongs to; at most 64 bytes of ASCII. */
  readonly volumeId: string;
  /** The boot of the machine in which the file was written; only the live map is tied to it. */
  bootId: string;
  sequence: number;
  /** The same in the live and the durable file that belong together; at most 64 bytes of ASCII. */
  generation: string;
  /** The hand-off has happened: the source is frozen, and blocks may be kept. */
  activated: boolean;
  /** Where the map says absent, the local disk is known to read as zeroes. */
  localZero: boolean;
  /** The engine stopped in good order: no write was under way. */
  clean: boolean;
  /**
   * Marks were lost once after the hand-off (with the power, or with the live map): a block that says fetched
   * may have been written.
   */
  missesWrites: boolean;
  /**
   * Of the live map: a sync of the local disk failed. What had been written by then may be shown by the page cache
   * and be nowhere else, and no later sync brings it back: only the durable map can be trusted.
   */
  syncFailed: boolean;
  counters: Counters;
}

const flagBits = { activated: 1, localZero: 2, clean: 4, missesWrites: 8, syncFailed: 16 } as const;
const flagNames = Object.keys(flagBits) as (keyof typeof flagBits)[];
const counterNames = ["demandBytes", "readaheadBytes", "syncBytes", "refetchedBytes", "holeBytes"] as const;

export function emptyCounters(): Counters {
  return { demandBytes: 0, readaheadBytes: 0, syncBytes: 0, refetchedBytes: 0, holeBytes: 0 };
}

export function blockCountOf({ sizeBytes, blockBytes }: Geometry): number {
  return Math.ceil(sizeBytes / blockBytes);
}

export function pageCountOf(geometry: Geometry): number {
  return Math.ceil(blockCountOf(geometry) / pageBlocks);
}

export const indexOffset = 2 * slotBytes;

export function pageOffset(geometry: Geometry, page: number): number {
  const indexLength = Math.ceil(pageCountOf(geometry) / slotBytes) * slotBytes;
  return indexOffset + indexLength + page * pageBytes;
}

export function mapFileBytes(geometry: Geometry): number {
  return pageOffset(geometry, pageCountOf(geometry));
}

export function encodeHeader(header: MapHeader): Uint8Array {
  const bytes = Buffer.alloc(headerBytes);
  bytes.write(magic, 0, "latin1");
  bytes.writeUInt32LE(layoutVersion, 8);
  bytes.writeUInt32LE(header.blockBytes, 12);
  bytes.writeBigUInt64LE(BigInt(header.sizeBytes), 16);
  bytes.writeBigUInt64LE(BigInt(header.sequence), 24);
  let flags = 0;
  for (const name of flagNames) if (header[name]) flags |= flagBits[name];
  bytes.writeUInt32LE(flags, 32);
  counterNames.forEach((name, at) => bytes.writeBigUInt64LE(BigInt(header.counters[name]), 40 + at * 8));
  bytes.write(header.volumeId.slice(0, 64), 128, "latin1");
  bytes.write(header.bootId.slice(0, 64), 192, "latin1");
  bytes.write(header.generation.slice(0, 64), 256, "latin1");
  checksum(bytes).copy(bytes, checksumAt);
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** The header in one slot; undefined if there is no valid one. Throws on a version this program is too old for. */
export function decodeHeader(slot: Uint8Array): MapHeader | undefined {
  const bytes = Buffer.from(slot.buffer, slot.byteOffset, slot.byteLength);
  if (bytes.length < headerBytes || bytes.toString("latin1", 0, 8) !== magic) return undefined;
  if (!checksum(bytes).equals(bytes.subarray(checksumAt, headerBytes))) return undefined;
  const version = bytes.readUInt32LE(8);
  if (version !== layoutVersion) throw new MapVersionError(version);
  const flags = bytes.readUInt32LE(32);
  const counters = emptyCounters();
  counterNames.forEach((name, at) => counters[name] = Number(bytes.readBigUInt64LE(40 + at * 8)));
  const header = {
    blockBytes: bytes.readUInt32LE(12),
    sizeBytes: Number(bytes.readBigUInt64LE(16)),
    sequence: Number(bytes.readBigUInt64LE(24)),
    activated: (flags & flagBits.activated) !== 0,
    localZero: (flags & flagBits.localZero) !== 0,
    clean: (flags & flagBits.clean) !== 0,
    missesWrites: (flags & flagBits.missesWrites) !== 0,
    syncFailed: (flags & flagBits.syncFailed) !== 0,
    counters,
    volumeId: text(bytes, 128),
    bootId: text(bytes, 192),
    generation: text(bytes, 256),
  };
  return isSound(header) ? header : undefined;
}

/** What is computed from a header must be neither endless nor inexact. */
function isSound({ sizeBytes, blockBytes, sequence, counters }: MapHeader): boolean {
  const isPowerOfTwo = blockBytes > 0 && (blockBytes & (blockBytes - 1)) === 0;
  return isPowerOfTwo && sizeBytes > 0 &&
    [sizeBytes, sequence, ...Object.values(counters)].every(Number.isSafeInteger);
}

/** The newer of the valid headers in the two slots. */
export function newestHeader(slots: readonly Uint8Array[]): MapHeader | undefined {
  let newest: MapHeader | undefined;
  for (const slot of slots) {
    const header = decodeHeader(slot);
    if (header !== undefined && (newest === undefined || header.sequence > newest.sequence)) newest = header;
  }
  return newest;
}

/**
 * Whether a stored page can be what an engine wrote, torn by a power failure perhaps. `indexByte` is the page's.
 * Bits of blocks that the disk does not have would be counted for others; a page that is empty, although nothing
 * but it speaks of its blocks, was lost with the end of the file (the index counts a page only after its words
 * are durable).
 */
export function isPageSound(words: Uint32Array, indexByte: number, blocks: number): boolean {
  const isAlone = (indexByte & validIndexBits) === indexBits.hasPage;
  if (isAlone && words.every((word) => word === 0)) return false;
  const planeWords = words.length / 2;
  return words.every((word, at) => {
    const inUse = Math.min(32, blocks - 32 * (at % planeWords));
    return inUse === 32 || (inUse <= 0 ? word === 0 : word >>> inUse === 0);
  });
}

/** A map of a format that this program does not know. */
export class MapVersionError extends Error {
  constructor(version: number) {
    super(`the residency map has format ${version}, this program knows format ${layoutVersion}`);
  }
}

function text(bytes: Buffer, at: number): string {
  const end = bytes.indexOf(0, at);
  return bytes.toString("latin1", at, end === -1 ? at + 64 : Math.min(end, at + 64));
}

function checksum(header: Buffer): Buffer {
  return createHash("sha256").update(header.subarray(0, checksumAt)).digest();
}
