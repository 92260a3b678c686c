/** Disk images for tests. */
import { createHash } from "node:crypto";
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";

export const MiB = 1024 * 1024;

/** A sparse disk: data (different in every block) in the given MiB, holes elsewhere. */
export function makeDisk(path: string, sizeMiB: number, dataMiB: readonly number[]): void {
  const descriptor = openSync(path, "w");
  try {
    ftruncateSync(descriptor, sizeMiB * MiB);
    for (const at of dataMiB) {
      const data = Buffer.alloc(MiB);
      for (let block = 0; block < MiB; block += 4096) {
        createHash("sha512").update(`${at}/${block}`).digest().copy(data, block);
        data.fill(data.subarray(block, block + 64), block + 64, block + 4096);
      }
      writeSync(descriptor, data, 0, MiB, at * MiB);
    }
  } finally {
    closeSync(descriptor);
  }
}
