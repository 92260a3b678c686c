/** Makes the sample source disk, and surveys it before it is migrated. */
import { createHash } from "node:crypto";
import { mkdirSync, rmSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { FailedError } from "../lib/errors.ts";
import type { Layout, SampleFile } from "./layout.ts";
import { type Programs, run } from "./programs.ts";
import { Random } from "./random.ts";

export const pieceBytes = 1024 * 1024;

export interface SampleDisk {
  readonly path: string;
  readonly layout: Layout;
  /** SHA-256, in hex, of each file in the file system. */
  readonly checksums: ReadonlyMap<string, string>;
  /** Of the whole disk. */
  readonly checksum: string;
  /** Where in the file system there is data: offsets of pieces (1 MiB) that are not all zeroes. */
  readonly dataPieces: readonly number[];
}

interface Surroundings {
  readonly programs: Programs;
  /** The demo's own. */
  readonly folder: string;
  readonly signal: AbortSignal;
}

/** Makes `source.img`; durable, so that what is measured later is not the writing of this. */
export async function makeSampleDisk(layout: Layout, surroundings: Surroundings): Promise<SampleDisk> {
  const { folder, signal } = surroundings;
  const path = join(folder, "source.img");
  const random = new Random("sample disk");
  const files = join(folder, "files");
  const checksums = new Map<string, string>();
  for (const file of layout.files) {
    signal.throwIfAborted();
    checksums.set(file.path, await makeFile(join(files, file.path), file, random));
  }
  const disk = await open(path, "wx+", 0o600);
  try {
    await disk.truncate(layout.sizeBytes);
    await makeFileSystem(layout, surroundings);
    rmSync(files, { recursive: true });
    for (let done = 0; done < layout.areaDataBytes; done += pieceBytes) {
      await writeAll(disk, random.bytes(pieceBytes), layout.fileSystemBytes + done);
    }
    await disk.sync();
  } finally {
    await disk.close();
  }
  const { checksum, dataPieces } = await survey(path, layout.fileSystemBytes, signal);
  return { path, layout, checksums, checksum, dataPieces };
}

/** SHA-256 of a disk or file, and which of its pieces before `endBytes` hold data. */
export async function survey(
  path: string,
  endBytes: number,
  signal: AbortSignal,
): Promise<{ checksum: string; dataPieces: number[] }> {
  const hash = createHash("sha256");
  const dataPieces: number[] = [];
  const zeroes = Buffer.alloc(pieceBytes);
  const piece = Buffer.allocUnsafeSlow(pieceBytes);
  const file = await open(path, "r");
  try {
    for (let offset = 0;; offset += pieceBytes) {
      signal.throwIfAborted();
      const found = await readUpTo(file, piece, offset);
      hash.update(found);
      if (offset + pieceBytes <= endBytes && Buffer.compare(found, zeroes) !== 0) dataPieces.push(offset);
      if (found.length < pieceBytes) return { checksum: hash.digest("hex"), dataPieces };
    }
  } finally {
    await file.close();
  }
}

/** Fills `into` from `offset` on; what there is of it, at the end of the file. */
export async function readUpTo(file: FileHandle, into: Buffer, offset: number): Promise<Buffer> {
  for (let done = 0; done < into.length;) {
    const { bytesRead } = await file.read(into, done, into.length - done, offset + done);
    if (bytesRead === 0) return into.subarray(0, done);
    done += bytesRead;
  }
  return into;
}

/** Returns its checksum. */
async function makeFile(
  path: string,
  { lengthBytes, holeBytes }: SampleFile,
  random: Random,
): Promise<string> {
  mkdirSync(dirname(path), { recursive: true });
  const hash = createHash("sha256");
  const file = await open(path, "wx", 0o644);
  try {
    const step = holeBytes === 0 ? pieceBytes : holeBytes;
    const hole = Buffer.alloc(holeBytes);
    for (let offset = 0; offset < lengthBytes; offset += step) {
      const isHole = holeBytes !== 0 && (offset / holeBytes) % 2 === 1;
      const content = isHole ? hole : random.bytes(Math.min(step, lengthBytes - offset));
      hash.update(content);
      if (!isHole) await writeAll(file, content, offset);
    }
    await file.truncate(lengthBytes);
  } finally {
    await file.close();
  }
  return hash.digest("hex");
}

/** Without mounting, so without root. */
async function makeFileSystem(
  { fileSystemBytes }: Layout,
  { programs, folder, signal }: Surroundings,
): Promise<void> {
  const { exitCode, output } = await run(programs.mke2fs, [
    "-q",
    "-F",
    ...["-t", "ext4"],
    ...["-b", "4096"],
    ...["-L", "dlsm-demo"],
    ...["-d", "files"],
    "source.img",
    `${fileSystemBytes / 1024}k`,
  ], { folder, signal });
  if (exitCode !== 0) throw new FailedError(`mke2fs ended with exit code ${exitCode}: ${output}`);
}

async function writeAll(file: FileHandle, data: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < data.length;) {
    done += (await file.write(data, done, data.length - done, offset + done)).bytesWritten;
  }
}
