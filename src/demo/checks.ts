/** The checks at the end of a demo, each by itself. */
import { existsSync, mkdirSync, rmSync, statSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { formatSize } from "../lib/units.ts";
import type { DiskStatus } from "../report/mod.ts";
import type { Account } from "./clients.ts";
import type { ExpectedDisk } from "./expected-disk.ts";
import { type Programs, run } from "./programs.ts";
import { pieceBytes, readUpTo, type SampleDisk, survey } from "./sample-disk.ts";

export interface Check {
  readonly name: string;
  readonly isPassed: boolean;
  /** One line for people: what was found. */
  readonly text: string;
}

export interface Surroundings {
  readonly programs: Programs;
  /** The demo's own. */
  readonly folder: string;
  readonly signal: AbortSignal;
}

/** What the clients read while the disk moved. */
export function checkReads({ reads, readBytes, differences }: Account): Check {
  const isPassed = reads > 0 && differences.length === 0;
  return {
    name: "reads",
    isPassed,
    text: isPassed
      ? `all ${reads} reads of the clients (${formatSize(readBytes)}) gave what they must`
      : `${differences.length} of ${reads} reads gave something else, the first ${
        differences[0]?.length
      } bytes ` +
        `at ${differences[0]?.offset}`,
  };
}

/** The hashes were compared when everything was there, before the source was released. */
export function checkHashes({ verified, verifiedBytes }: DiskStatus): Check {
  return {
    name: "hashes",
    isPassed: verified === "same",
    text: verified === "same"
      ? `both sides have the same hashes (${formatSize(verifiedBytes)} that was not written here)`
      : "the hashes of the two sides were not compared",
  };
}

/** By the engine's own counters. */
export function checkMovedOnce({ refetchedBytes, fetchedBytes, overwrittenBytes }: DiskStatus): Check {
  const isPassed = refetchedBytes === 0 && fetchedBytes.demand > 0 && overwrittenBytes > 0;
  return {
    name: "movedOnce",
    isPassed,
    text: isPassed
      ? "no block moved twice, and none that was overwritten first moved at all"
      : `moved twice: ${formatSize(refetchedBytes)}; on demand: ${formatSize(fetchedBytes.demand)}; ` +
        `overwritten first: ${formatSize(overwrittenBytes)}`,
  };
}

/** Byte for byte. */
export async function checkContent(
  expected: ExpectedDisk,
  destination: string,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<Check> {
  const at = await firstDifference(expected, destination, sizeBytes, signal);
  return {
    name: "content",
    isPassed: at === undefined,
    text: at === undefined
      ? `the destination is the source with the client's writes, byte for byte (${formatSize(sizeBytes)})`
      : `the destination differs from the source with the client's writes at ${at}`,
  };
}

async function firstDifference(
  expected: ExpectedDisk,
  destination: string,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<string | undefined> {
  const hasBytes = statSync(destination).size;
  if (hasBytes !== sizeBytes) return `its end: it has ${hasBytes} bytes, not ${sizeBytes}`;
  const buffer = Buffer.allocUnsafeSlow(pieceBytes);
  const file = await open(destination, "r");
  try {
    for (let offset = 0; offset < sizeBytes; offset += pieceBytes) {
      signal.throwIfAborted();
      const found = await readUpTo(file, buffer, offset);
      const wanted = await expected.read(offset, Math.min(pieceBytes, sizeBytes - offset));
      if (!found.equals(wanted)) return `byte ${offset + found.findIndex((byte, at) => byte !== wanted[at])}`;
    }
    return undefined;
  } finally {
    await file.close();
  }
}

/** What the file system's own checker says of an image in the demo's folder. */
export async function checkFileSystem(
  image: string,
  { programs, folder, signal }: Surroundings,
): Promise<Check> {
  const { exitCode, output } = await run(programs.e2fsck, ["-f", "-n", image], { folder, signal });
  const isPassed = exitCode === 0;
  return {
    name: "fileSystem",
    isPassed,
    text: isPassed
      ? "e2fsck finds the file system on the destination clean"
      : `e2fsck on the destination ended with exit code ${exitCode}: ${
        output.trim().split("\n").slice(-3).join(" / ")
      }`,
  };
}

/** The files, read out of an image in the demo's folder without mounting it. */
export async function checkFiles(
  image: string,
  checksums: SampleDisk["checksums"],
  { programs, folder, signal }: Surroundings,
): Promise<Check> {
  const dump = join(folder, "dump");
  mkdirSync(dump, { mode: 0o700 });
  try {
    // Without root it complains that it cannot give files away: what counts is what is in them.
    await run(programs.debugfs, ["-R", "rdump / dump", image], { folder, signal });
    const wrong: string[] = [];
    for (const [path, checksum] of checksums) {
      const file = join(dump, path);
      const isSame = existsSync(file) && (await survey(file, 0, signal)).checksum === checksum;
      if (!isSame) wrong.push(path);
    }
    return {
      name: "files",
      isPassed: wrong.length === 0,
      text: wrong.length === 0
        ? `the ${checksums.size} files on the destination have the checksums they were made with`
        : `${wrong.length} of ${checksums.size} files on the destination are missing or differ, first ${
          wrong[0]
        }`,
    };
  } finally {
    rmSync(dump, { recursive: true, force: true });
  }
}

/** dlsm never writes the source. */
export async function checkSource({ path, checksum }: SampleDisk, signal: AbortSignal): Promise<Check> {
  const isPassed = (await survey(path, 0, signal)).checksum === checksum;
  return { name: "source", isPassed, text: `the source is ${isPassed ? "" : "not "}as it was` };
}
