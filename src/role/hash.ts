/** SHA-256 of pieces of a disk, read as they are now. */
import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { PreconditionError } from "../lib/errors.ts";

/** Longest extent that is read at once; a piece's extents lie within one such window. */
const maxExtentBytes = 1024 * 1024;

/**
 * @param pieces each a list of [offset, length] in bytes, hashed one after the other
 * @throws PreconditionError for an extent beyond the disk or longer than 1 MiB
 */
export async function hashExtents(
  path: string,
  sizeBytes: number,
  pieces: readonly (readonly (readonly [number, number])[])[],
): Promise<Uint8Array[]> {
  const file = await open(path, "r");
  try {
    const buffer = Buffer.allocUnsafeSlow(maxExtentBytes);
    const hashes: Uint8Array[] = [];
    for (const extents of pieces) {
      const hash = createHash("sha256");
      for (const [offset, length] of extents) {
        if (length > maxExtentBytes || offset + length > sizeBytes) {
          throw new PreconditionError(`a piece to hash, ${offset}+${length}, is not in ${path}`);
        }
        for (let done = 0; done < length;) {
          const { bytesRead } = await file.read(buffer, 0, length - done, offset + done);
          if (bytesRead === 0) throw new PreconditionError(`${path} ends before ${offset + length}`);
          hash.update(buffer.subarray(0, bytesRead));
          done += bytesRead;
        }
      }
      hashes.push(new Uint8Array(hash.digest()));
    }
    return hashes;
  } finally {
    await file.close();
  }
}
