/**
 * The demo: a disk with a file system on it is made, migrated on this machine by the real tgtd while real NBD
 * clients use it, and checked. All of it happens in one folder of its own, which is removed at the end.
 */
import { mkdirSync, mkdtempSync, realpathSync, rmSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { messageOf, PreconditionError } from "../lib/errors.ts";
import { checkSocketPath } from "../lib/unix-socket.ts";
import { formatDuration, formatSize } from "../lib/units.ts";
import type { Reporter } from "../report/mod.ts";
import {
  type Check,
  checkContent,
  checkFiles,
  checkFileSystem,
  checkHashes,
  checkMovedOnce,
  checkReads,
  checkSource,
} from "./checks.ts";
import { ExpectedDisk } from "./expected-disk.ts";
import { type Layout, layoutOf } from "./layout.ts";
import { checkNothingLeft } from "./leftovers.ts";
import { move, type Moved } from "./move.ts";
import { findPrograms, type Programs } from "./programs.ts";
import { makeSampleDisk } from "./sample-disk.ts";

export interface DemoOptions {
  /** Where the demo makes its own folder. */
  readonly parentFolder: string;
  /** Of the sample disk; rounded down to MiB. */
  readonly sizeBytes: number;
  /** Leave the folder with both disks. */
  readonly keep: boolean;
}

export interface DemoResult extends Moved {
  readonly layout: Layout;
  readonly checks: readonly Check[];
  /** Making the disk and checking included. */
  readonly tookAllMs: number;
  /** Undefined if it was removed. */
  readonly folder: string | undefined;
}

/** The sample files once, their data on the source, and on the destination; some for file systems' own. */
const spaceFactor = 3.5;
/** The longest name of a socket in the folder; the id of a migration has 8 letters. */
const longestSocket = join("run", "xxxxxxxx", "dst", "control.sock");

/**
 * @param signal ends it early; then it rejects with whatever that led to, after everything was removed
 * @throws PreconditionError if a program, space or permission is missing, UsageError for the size
 */
export async function runDemo(
  options: DemoOptions,
  reporter: Reporter,
  signal: AbortSignal,
): Promise<DemoResult> {
  const startedAt = performance.now();
  const layout = layoutOf(options.sizeBytes);
  const programs = findPrograms();
  const folder = makeFolder(options.parentFolder, layout.dataBytes);
  let result: Omit<DemoResult, "tookAllMs" | "folder">;
  try {
    result = await demonstrate({ layout, programs, folder, reporter, signal });
  } finally {
    if (options.keep) reporter.message("info", `kept: ${folder}`);
    else rmSync(folder, { recursive: true, force: true });
  }
  const tookAllMs = performance.now() - startedAt;
  return { ...result, tookAllMs, folder: options.keep ? folder : undefined };
}

interface Surroundings {
  readonly layout: Layout;
  readonly programs: Programs;
  readonly folder: string;
  readonly reporter: Reporter;
  readonly signal: AbortSignal;
}

async function demonstrate(
  { layout, programs, folder, reporter, signal }: Surroundings,
): Promise<Omit<DemoResult, "tookAllMs" | "folder">> {
  const say = (text: string) => reporter.message("info", text);
  const folders = { state: join(folder, "state"), run: join(folder, "run") };
  for (const path of [folders.state, folders.run]) mkdirSync(path, { mode: 0o700 });

  say(`making a disk of ${formatSize(layout.sizeBytes)} in ${folder}`);
  const disk = await makeSampleDisk(layout, { programs, folder, signal });
  say(
    `it has an ext4 file system with ${layout.files.length} files, and more data behind it: ` +
      `${formatSize(layout.dataBytes)} in all, the rest is holes`,
  );

  const destination = join(folder, "destination.img");
  const expected = await ExpectedDisk.open(disk.path);
  try {
    say("migrating it to destination.img, with the sync slowed down at first");
    const qemuIo = programs["qemu-io"];
    const moved = await move({ disk, expected, destination, qemuIo, folder, folders, reporter, signal });
    say(`everything is here, and the source is released, after ${formatDuration(moved.tookMs)}; checking`);
    const surroundings = { programs, folder, signal };
    const checks = [
      checkReads(moved.account),
      checkHashes(moved.status),
      checkMovedOnce(moved.status),
      await checkFileSystem("destination.img", surroundings),
      await checkFiles("destination.img", disk.checksums, surroundings),
      await checkContent(expected, destination, layout.sizeBytes, signal),
      await checkSource(disk, signal),
      await checkNothingLeft(folders, moved.processes),
    ];
    return { ...moved, layout, checks };
  } finally {
    await expected.close();
  }
}

/** A fresh one, mode 0700. */
function makeFolder(parent: string, dataBytes: number): string {
  const refuse = (problem: string, cause?: unknown) =>
    new PreconditionError(`the folder ${parent} ${problem}`, {
      hint: "name another one with --folder",
      cause,
    });
  let folder: string;
  let freeBytes: number;
  try {
    const { bavail, bsize } = statfsSync(parent);
    freeBytes = bavail * bsize;
    folder = mkdtempSync(join(realpathSync(parent), "dlsm-demo-"));
  } catch (cause) {
    throw refuse(`cannot be used: ${messageOf(cause)}`, cause);
  }
  try {
    checkSocketPath(join(folder, longestSocket));
    const neededBytes = dataBytes * spaceFactor;
    if (freeBytes < neededBytes) {
      throw refuse(`has ${formatSize(freeBytes)} left, and the demo needs about ${formatSize(neededBytes)}`);
    }
    return folder;
  } catch (error) {
    rmSync(folder, { recursive: true });
    throw error;
  }
}
