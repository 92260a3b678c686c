/**
 * What the sample disk looks like. Pure.
 *
 *     0                                              fileSystemBytes            sizeBytes
 *     | ext4, mounted nowhere, with `files`: only read | the client's area: half data, half hole |
 */
import { UsageError } from "../lib/errors.ts";
import { formatSize } from "../lib/units.ts";

const MiB = 1024 * 1024;
const minBytes = 64 * MiB;
const holeBytes = 64 * 1024;
const documents = 400;

export interface SampleFile {
  /** Inside the file system, without a slash at the start. */
  readonly path: string;
  readonly lengthBytes: number;
  /** Every second piece of this length is a hole; 0: none is. */
  readonly holeBytes: number;
}

export interface Layout {
  readonly sizeBytes: number;
  readonly fileSystemBytes: number;
  /** From `fileSystemBytes` on: where the client writes. */
  readonly areaBytes: number;
  /** The first part of that area: data before the client comes. The rest is a hole. */
  readonly areaDataBytes: number;
  readonly files: readonly SampleFile[];
  /** All data on the disk, the file system's own left out. */
  readonly dataBytes: number;
}

/** A disk of `sizeBytes` (rounded down to MiB), two fifths of it data. Throws UsageError below 64 MiB. */
export function layoutOf(sizeBytes: number): Layout {
  if (sizeBytes < minBytes) {
    throw new UsageError(
      `--size ${formatSize(sizeBytes)} is too small: the demo needs ${formatSize(minBytes)}`,
    );
  }
  const wholeBytes = Math.floor(sizeBytes / MiB) * MiB;
  const fileSystemBytes = Math.floor(wholeBytes / 8 / MiB) * 7 * MiB;
  const areaBytes = wholeBytes - fileSystemBytes;
  const areaDataBytes = Math.floor(areaBytes / 2 / MiB) * MiB;
  const files = filesOf(Math.floor(wholeBytes / 3));
  const fileBytes = files.reduce((sum, file) => sum + dataBytesOf(file), 0);
  return {
    sizeBytes: wholeBytes,
    fileSystemBytes,
    areaBytes,
    areaDataBytes,
    files,
    dataBytes: fileBytes + areaDataBytes,
  };
}

function dataBytesOf({ lengthBytes, holeBytes }: SampleFile): number {
  return holeBytes === 0 ? lengthBytes : Math.ceil(lengthBytes / holeBytes / 2) * holeBytes;
}

/** About `bytes` of data: a few large files, a sparse one, many small ones; odd lengths too. */
function filesOf(bytes: number): SampleFile[] {
  const files: SampleFile[] = [];
  for (let n = 1; n <= 8; n++) {
    files.push({ path: `pictures/scan-${n}.raw`, lengthBytes: Math.floor(bytes / 10) + n, holeBytes: 0 });
  }
  const pieces = Math.floor(bytes / 10 / holeBytes);
  files.push({ path: "database/pages.db", lengthBytes: 2 * pieces * holeBytes, holeBytes });
  for (let n = 1; n <= documents; n++) {
    const path = `documents/${String(n).padStart(3, "0")}.txt`;
    files.push({ path, lengthBytes: 1 + (n * 7919) % 20_000, holeBytes: 0 });
  }
  return files;
}
