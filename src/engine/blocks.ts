/** Between offsets in bytes and blocks. Pure. */
import type { Geometry } from "./map-layout.ts";
import type { BlockRange } from "./range-index.ts";

/** The blocks that [offset, offset + length) touches. */
export function blocksOf(blockBytes: number, offset: number, length: number): BlockRange {
  const first = Math.floor(offset / blockBytes);
  return { first, count: Math.ceil((offset + length) / blockBytes) - first };
}

/** Where blocks lie on the disk; the last block may be short. */
export function bytesOf(
  { blockBytes, sizeBytes }: Geometry,
  range: BlockRange,
): { offset: number; length: number } {
  const offset = range.first * blockBytes;
  return { offset, length: Math.min(sizeBytes, offset + range.count * blockBytes) - offset };
}

/** The bytes of a range of blocks that lie in [offset, offset + length). */
export function clip(
  blockBytes: number,
  range: BlockRange,
  offset: number,
  length: number,
): { from: number; to: number } {
  const from = Math.max(offset, range.first * blockBytes);
  return { from, to: Math.min(offset + length, (range.first + range.count) * blockBytes) };
}
