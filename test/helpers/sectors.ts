/**
 * Disks whose every 512-byte sector says what was last written to it, and a record of what must be there.
 *
 * A value is a number: 0 for zeroes, `sourceValue` for what the source holds, anything else for a write. All
 * of a sector's 128 words depend on its value and its place, so that a sector of two writes, or one that
 * belongs elsewhere, is told from a whole one.
 */
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { MiB } from "./disk.ts";

export const sectorBytes = 512;
export const sourceValue = 1;
const words = sectorBytes / 4;

/** Fills `into`, which begins at the sector `first`, with one value. */
export function fillSectors(into: Uint8Array, first: number, value: number): Uint8Array {
  if (value === 0) return into.fill(0);
  const view = new Uint32Array(into.buffer, into.byteOffset, into.byteLength / 4);
  for (let at = 0; at < view.length; at++) {
    const sector = first + Math.floor(at / words);
    view[at] = at % words === 0 ? value : word(sector, value, at % words);
  }
  return into;
}

/** The value of the sector that `bytes` begins with; undefined if it is not one whole sector of this place. */
export function sectorValue(bytes: Uint8Array, sector: number): number | undefined {
  const view = new Uint32Array(bytes.buffer, bytes.byteOffset, words);
  const value = view[0];
  for (let at = 1; at < words; at++) {
    if (view[at] !== (value === 0 ? 0 : word(sector, value, at))) return undefined;
  }
  return value;
}

function word(sector: number, value: number, at: number): number {
  return (Math.imul(value, 0x9e3779b1) ^ Math.imul(sector, 0x85ebca6b) ^ Math.imul(at, 0xc2b2ae35)) >>> 0;
}

/** A source disk: `sourceValue` in the given MiB, holes elsewhere. */
export function makeSectorDisk(path: string, sizeMiB: number, dataMiB: readonly number[]): void {
  const descriptor = openSync(path, "w");
  try {
    ftruncateSync(descriptor, sizeMiB * MiB);
    const data = new Uint8Array(MiB);
    for (const at of dataMiB) {
      writeSync(descriptor, fillSectors(data, at * MiB / sectorBytes, sourceValue), 0, MiB, at * MiB);
    }
  } finally {
    closeSync(descriptor);
  }
}

/** What every sector of a disk must hold, and what it may hold because a write was never acknowledged. */
export class History {
  readonly #acknowledged: Uint32Array;
  readonly #unacknowledged = new Map<number, number[]>();

  constructor(sizeMiB: number, dataMiB: readonly number[]) {
    const perMiB = MiB / sectorBytes;
    this.#acknowledged = new Uint32Array(sizeMiB * perMiB);
    for (const at of dataMiB) this.#acknowledged.fill(sourceValue, at * perMiB, (at + 1) * perMiB);
  }

  get sectors(): number {
    return this.#acknowledged.length;
  }

  /** A write is sent. */
  begin(first: number, count: number, value: number): void {
    for (let sector = first; sector < first + count; sector++) {
      const values = this.#unacknowledged.get(sector);
      if (values === undefined) this.#unacknowledged.set(sector, [value]);
      else values.push(value);
    }
  }

  /** It was acknowledged; no other write of these sectors was under way. */
  acknowledge(first: number, count: number, value: number): void {
    for (let sector = first; sector < first + count; sector++) {
      this.#acknowledged[sector] = value;
      this.#unacknowledged.delete(sector);
    }
  }

  /**
   * Checks sectors that were read while none of them was being written: each holds its last acknowledged
   * value, or one that was sent later. What it holds is settled by that. Undefined, or what is wrong.
   */
  settle(first: number, bytes: Uint8Array): string | undefined {
    for (let at = 0; at < bytes.length; at += sectorBytes) {
      const sector = first + at / sectorBytes;
      const found = sectorValue(bytes.subarray(at), sector);
      const last = this.#acknowledged[sector];
      if (found === last && !this.#unacknowledged.has(sector)) continue;
      const later = this.#unacknowledged.get(sector) ?? [];
      if (found === undefined || (found !== last && !later.includes(found))) {
        return `sector ${sector} holds ${found ?? "no whole sector"}; acknowledged ${last}, later [${later}]`;
      }
      this.acknowledge(sector, 1, found);
    }
    return undefined;
  }

  /** Sectors whose last write was never answered. */
  unsettled(): number[] {
    return [...this.#unacknowledged.keys()];
  }

  /** Checks the whole disk in a file; undefined, or what is wrong. */
  settleFile(path: string): string | undefined {
    const descriptor = openSync(path, "r");
    const piece = new Uint8Array(MiB);
    try {
      for (let sector = 0; sector < this.sectors; sector += MiB / sectorBytes) {
        const bytes = readSync(descriptor, piece, 0, MiB, sector * sectorBytes);
        if (bytes !== MiB) return `${path} ends after ${sector * sectorBytes + bytes} bytes`;
        const problem = this.settle(sector, piece);
        if (problem !== undefined) return problem;
      }
      return undefined;
    } finally {
      closeSync(descriptor);
    }
  }
}
