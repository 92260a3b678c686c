/**
 * Making a disk read-only, and giving it back as it was.
 *
 * | disk   | kind        | how                             | keeps from writing                                  |
 * |--------|-------------|---------------------------------|-----------------------------------------------------|
 * | file   | "mode"      | no write permission in its mode | new openers without CAP_DAC_OVERRIDE                |
 * | file   | "immutable" | chattr +i                       | every new opener, root included; no unlink, rename  |
 * | device | "readOnly"  | blockdev --setro                | everybody through this device's own page cache      |
 *
 * None of them stops a file system that is mounted already, a device on top of this one, or (files) on every
 * file system a process that has it open already: that is why the users of the disk are looked up as well, and
 * why its content is watched afterwards. A lease (F_SETLEASE) would need a process that holds it all the time.
 *
 * What survives a reboot: a file's mode and flag. What does not: a device's flag.
 */
import { constants, readFileSync, statSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { execa } from "execa";
import { errnoCode, FailedError, messageOf } from "../lib/errors.ts";
import { findProgram } from "../lib/program.ts";
import { place } from "./disk-facts.ts";
import { deviceName } from "./disk-identity.ts";
import type { FenceKind } from "./messages.ts";
import type { FenceRecord } from "./source-journal.ts";

/** A network file system can hang. */
const timeoutMs = 20_000;
const permissions = 0o7777;
const writable = 0o222;

type Original = FenceRecord["original"];

export interface Protection {
  readonly kinds: readonly FenceKind[];
  /** What could not be had, in words. */
  readonly notes: readonly string[];
}

/** What the disk has now, and will be given back. */
export async function originalOf(path: string): Promise<Original> {
  const stats = statSync(path);
  return stats.isFile()
    ? { mode: stats.mode & permissions, isImmutable: await isImmutable(path), isReadOnly: null }
    : { mode: null, isImmutable: null, isReadOnly: isReadOnly(path) };
}

/**
 * Makes the disk read-only where that can be had; can be repeated. What was written is durable before it is
 * made so. `immutable` false: without the flag.
 */
export async function protect(path: string, original: Original, immutable = true): Promise<Protection> {
  const file = await open(path, constants.O_RDONLY);
  try {
    await file.sync();
    if (original.mode === null) return await setReadOnly(path);
    const mode = await clearMode(file, original.mode);
    const flag = immutable ? await setImmutable(path, original) : { kinds: [], notes: [] };
    return { kinds: [...mode.kinds, ...flag.kinds], notes: [...mode.notes, ...flag.notes] };
  } finally {
    await file.close();
  }
}

/** Undoes `protect`; can be repeated. Throws FailedError if that is impossible. */
export async function giveBack(path: string, original: Original): Promise<void> {
  if (original.isReadOnly === false && isReadOnly(path) !== false) {
    await mustRun(path, "blockdev", ["--setrw", path]);
  }
  if (original.isImmutable === false) await clearImmutable(path);
  if (original.mode === null) return;
  const file = await open(path, constants.O_RDONLY);
  try {
    // Somebody who has changed the mode since then meant it.
    const isOurs = (await modeOf(file)) === (original.mode & ~writable);
    if (isOurs && (original.mode & writable) !== 0) await file.chmod(original.mode);
  } catch (cause) {
    throw cannotUndo(path, `its mode ${original.mode.toString(8)}: ${messageOf(cause)}`, cause);
  } finally {
    await file.close();
  }
}

/** Takes the immutable flag away, if the fence put it there: with it nobody can open the file for writing, and
 * tgtd, which tries that first, does not try again (EPERM). */
export async function liftImmutable(path: string, original: Original): Promise<void> {
  if (original.isImmutable === false) await clearImmutable(path);
}

async function clearMode(file: FileHandle, original: number): Promise<Protection> {
  try {
    const mode = await modeOf(file);
    if ((mode & writable) !== 0) await file.chmod(original & ~writable);
    return { kinds: ["mode"], notes: [] };
  } catch (error) {
    return { kinds: [], notes: [`its mode cannot be changed (${errnoCode(error) ?? messageOf(error)})`] };
  }
}

async function modeOf(file: FileHandle): Promise<number> {
  return (await file.stat()).mode & permissions;
}

async function setImmutable(path: string, original: Original): Promise<Protection> {
  if (original.isImmutable === null) return { kinds: [], notes: ["it cannot be made immutable here"] };
  if (original.isImmutable || await isImmutable(path)) return { kinds: ["immutable"], notes: [] };
  const problem = await run("chattr", ["+i", path]).then(({ problem }) => problem);
  return problem === null
    ? { kinds: ["immutable"], notes: [] }
    : { kinds: [], notes: [`it cannot be made immutable (${problem})`] };
}

async function clearImmutable(path: string): Promise<void> {
  if (await isImmutable(path) !== false) await mustRun(path, "chattr", ["-i", path]);
}

/** Null if the file system has no such flag, or it cannot be told. */
async function isImmutable(path: string): Promise<boolean | null> {
  const { problem, stdout } = await run("lsattr", ["-d", path]);
  return problem === null ? stdout.split(" ", 1)[0].includes("i") : null;
}

async function setReadOnly(path: string): Promise<Protection> {
  if (isReadOnly(path)) return { kinds: ["readOnly"], notes: [] };
  const { problem } = await run("blockdev", ["--setro", path]);
  return problem === null
    ? { kinds: ["readOnly"], notes: [] }
    : { kinds: [], notes: [`it cannot be made read-only (${problem})`] };
}

/** Null if it cannot be told. */
function isReadOnly(path: string): boolean | null {
  try {
    const folder = `/sys/dev/block/${deviceName(statSync(path, { bigint: true }).rdev)}`;
    return readFileSync(`${folder}/ro`, "utf8").trim() === "1";
  } catch {
    return null;
  }
}

async function mustRun(path: string, program: string, args: readonly string[]): Promise<void> {
  const { problem } = await run(program, args);
  if (problem !== null) throw cannotUndo(path, `${program} ${args[0]}: ${problem}`);
}

function cannotUndo(path: string, what: string, cause?: unknown): FailedError {
  return new FailedError(`${place(path)} cannot be given back as it was (${what})`, {
    hint: "mend that, and give the command again: it goes on from there",
    cause,
  });
}

/** `problem`: why it failed, in words; null if it did not. */
async function run(
  name: string,
  args: readonly string[],
): Promise<{ stdout: string; problem: string | null }> {
  const program = findProgram(name);
  if (program === undefined) return { stdout: "", problem: `there is no ${name} here` };
  const { failed, stdout, stderr, shortMessage } = await execa(program, args, {
    reject: false,
    stdin: "ignore",
    env: { LC_ALL: "C" },
    timeout: timeoutMs,
  });
  const words = stderr.trim().split("\n").at(-1)?.replace(/^\S+: /, "");
  return { stdout, problem: failed ? words || shortMessage || "it failed" : null };
}
