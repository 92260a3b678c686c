/** Exported disks to be fenced, for the tests of the fence of files and of devices. */
import { chmodSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import * as assert from "uvu/assert";
import { DlsmError } from "../../src/lib/errors.ts";
import { roleFolders } from "../../src/role/layout.ts";
import { sourceJournal, type SourceRecord } from "../../src/role/source-journal.ts";
import { SourceRole } from "../../src/role/source.ts";
import { makeDisk } from "../helpers/disk.ts";
import { findProgram } from "../helpers/needs.ts";
import { until } from "../helpers/until.ts";
import { tempFolder } from "../helpers/temp.ts";

export const hasFlag = await canBeImmutable();
export const id = "fencetest";

async function canBeImmutable(): Promise<boolean> {
  if (findProgram("chattr") === undefined) return false;
  const path = join(tempFolder("flag"), "file");
  makeDisk(path, 1, []);
  const { failed } = await execa("chattr", ["+i", path], { reject: false });
  if (!failed) await execa("chattr", ["-i", path]);
  return !failed;
}

/** One exported disk; everything is given back and removed by `close`. */
export class Exported {
  readonly path: string;
  readonly #folders: { state: string; run: string };

  private constructor(path: string, folder: string) {
    this.path = path;
    this.#folders = { state: join(folder, "state"), run: join(folder, "run") };
    for (const each of Object.values(this.#folders)) mkdirSync(each, { mode: 0o700 });
  }

  static async of(path: string): Promise<Exported> {
    const exported = new Exported(path, tempFolder("fence"));
    const address = "127.0.0.1";
    const portal = { address, port: 0 };
    await exported.role.export({ id, path, portal, allow: address, destination: null, tunnel: null });
    return exported;
  }

  /** A new one each time, as each command has: it remembers nothing but what is in the journal. */
  get role(): SourceRole {
    return new SourceRole(this.#folders);
  }

  get journal() {
    return sourceJournal(roleFolders(this.#folders, "source", id).state);
  }

  get fence() {
    return this.journal.read()!.fence;
  }

  rewrite(change: (record: SourceRecord) => SourceRecord): void {
    this.journal.write(change(this.journal.read()!));
  }

  async entry() {
    const [entry] = await this.role.list({});
    return entry!;
  }

  async danger(): Promise<string> {
    return (await this.entry()).danger ?? "none";
  }

  async killTgtd(): Promise<void> {
    const pid = (await this.entry()).tgtdPid!;
    process.kill(pid, "SIGKILL");
    await until(() => !readFileOr(`/proc/${pid}/stat`, "").match(/\) [^Z]/), "tgtd ends");
  }

  async close(): Promise<void> {
    await this.role.release({ id, force: true });
  }
}

function readFileOr(path: string, otherwise: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return otherwise;
  }
}

export function newDisk(mode = 0o640): string {
  const path = join(tempFolder("disk"), "disk");
  makeDisk(path, 4, [0]);
  chmodSync(path, mode);
  return path;
}

export async function withExported(path: string, use: (exported: Exported) => Promise<void>): Promise<void> {
  const exported = await Exported.of(path);
  try {
    await use(exported);
  } finally {
    await exported.close();
  }
}

export const modeOf = (path: string) => statSync(path).mode & 0o7777;

export async function isImmutable(path: string): Promise<boolean> {
  if (!hasFlag) return false;
  return (await execa("lsattr", ["-d", path])).stdout.split(" ", 1)[0]!.includes("i");
}

export async function setImmutable(path: string, on: boolean): Promise<void> {
  if (hasFlag) await execa("chattr", [on ? "+i" : "-i", path]);
}

/** Mode and flag as they were made, by a fence or without. */
export async function assertFile(
  path: string,
  mode: number,
  immutable: boolean,
  what?: string,
): Promise<void> {
  const now = { mode: modeOf(path), immutable: await isImmutable(path) };
  assert.equal(now, { mode, immutable: immutable && hasFlag }, what);
}

export async function refusalOf(promise: Promise<unknown>): Promise<DlsmError> {
  const error = await promise.then(() => undefined, (error) => error);
  assert.ok(error instanceof DlsmError, `not refused: ${error}`);
  return error;
}
