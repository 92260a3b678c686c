/**
 * Commands that must be refused: with one message that says what and where, a hint that says what to do, the
 * documented exit code, an error object with `--json`, and nothing changed.
 */
import { createHash } from "node:crypto";
import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import * as assert from "uvu/assert";
import { main } from "../../src/cli/mod.ts";
import { exitCodes } from "../../src/lib/errors.ts";
import { selfCommand } from "../../src/lib/self.ts";
import { Dlsm, type Ran } from "../helpers/dlsm.ts";

export interface Refusal {
  readonly args: readonly string[];
  readonly kind: "failed" | "usage" | "precondition" | "locked";
  /** Each must be in the message. */
  readonly says: readonly (string | RegExp)[];
  /** Each must be in the hint. */
  readonly hint: readonly (string | RegExp)[];
  /** What starts dlsm: as another user, or with other mounts. */
  readonly prefix?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
}

/**
 * Tries them all; then everything must be as it was before. The first one is tried as its user does, and so
 * are those that another program starts; the others in this process: the same code, without its start.
 */
export async function refuseAll(dlsm: Dlsm, refusals: readonly Refusal[]): Promise<void> {
  const before = everythingOf(dlsm);
  for (const [number, refusal] of refusals.entries()) {
    const args = [...refusal.args, "--json"];
    const { prefix, environment } = refusal;
    const isAlone = number === 0 || prefix !== undefined || environment !== undefined;
    checkRefusal(refusal, await (isAlone ? runWith(dlsm, args, prefix, environment) : runHere(dlsm, args)));
  }
  assert.equal(everythingOf(dlsm), before, "something was changed");
}

export function checkRefusal({ args, kind, says, hint }: Refusal, { exitCode, stdout, stderr }: Ran): void {
  const what = `dlsm ${args.join(" ")}\n${stdout}\n${stderr}`;
  assert.is(exitCode, exitCodes[kind], what);
  const lines = stdout.split("\n").filter((line) => line !== "");
  assert.is(lines.length, 1, `one object: ${what}`);
  const { error } = JSON.parse(lines[0]!);
  assert.equal({ kind: error.kind, exitCode: error.exitCode }, { kind, exitCode: exitCodes[kind] }, what);
  for (const part of says) assert.ok(isIn(error.message, part), `the message lacks ${part}: ${what}`);
  for (const part of hint) assert.ok(isIn(error.hint ?? "", part), `the hint lacks ${part}: ${what}`);
  assert.ok(typeof error.hint === "string" && error.hint !== "", `no hint: ${what}`);
  assert.ok(stderr.includes(`error: ${error.message}\n  ${error.hint}`), `the same for people: ${what}`);
  assert.not.match(stderr, /^ +at /m, `a stack: ${what}`);
}

function isIn(text: string, part: string | RegExp): boolean {
  return typeof part === "string" ? text.includes(part) : part.test(text);
}

/** `dlsm.run`, started by another program or in another environment. */
export async function runWith(
  dlsm: Dlsm,
  args: readonly string[],
  prefix: readonly string[] = [],
  environment: Readonly<Record<string, string>> = {},
): Promise<Ran> {
  const self = selfCommand(args);
  const [program, ...argv] = [...prefix, self.program, ...self.args];
  const { exitCode, stdout, stderr } = await execa(program!, argv, {
    env: { ...dlsm.environment, ...environment },
    reject: false,
    stdin: "ignore",
    cwd: dlsm.folder,
  });
  return { exitCode, stdout, stderr };
}

/** The command line in this process. */
async function runHere(dlsm: Dlsm, args: readonly string[]): Promise<Ran> {
  const output = { stdout: "", stderr: "" };
  const restore = [...divert(process.stdout, "stdout"), ...divert(process.stderr, "stderr")];
  const folder = process.cwd();
  const environment = { ...process.env };
  Object.assign(process.env, dlsm.environment);
  process.chdir(dlsm.folder);
  try {
    return { exitCode: await main(args), ...output };
  } finally {
    process.chdir(folder);
    for (const name of Object.keys(dlsm.environment)) delete process.env[name];
    Object.assign(process.env, environment);
    for (const undo of restore) undo();
  }

  function divert(stream: NodeJS.WriteStream, name: keyof typeof output): (() => void)[] {
    const { write } = stream;
    stream.write = (text: string | Uint8Array) => {
      output[name] += text;
      return true;
    };
    return [() => stream.write = write];
  }
}

/** Processes, and every file of the test's folder with its content; logs, empty folders, the driver's name and that the host got an id do not count. */
function everythingOf(dlsm: Dlsm): unknown {
  const files: Record<string, string> = {};
  for (const name of readdirSync(dlsm.folder, { recursive: true, encoding: "utf8" }).sort()) {
    const path = join(dlsm.folder, name);
    const { mode, size, mtimeMs, ino } = lstatSync(path);
    const isFile = (mode & 0o170000) === 0o100000;
    if ((mode & 0o170000) === 0o040000 || /\.log$|\/(driver|host-id)$/.test(name)) continue;
    const content = isFile ? createHash("sha256").update(readFileSync(path)).digest("hex") : "";
    files[name] = [mode.toString(8), size, mtimeMs, ino, content].join(" ");
  }
  return { files, processes: dlsm.processes().map(({ pid }) => pid) };
}

/** A test's own dlsm, of which nothing runs afterwards. */
export async function withDlsm(body: (dlsm: Dlsm) => Promise<void>): Promise<void> {
  const dlsm = new Dlsm();
  try {
    await body(dlsm);
  } finally {
    await dlsm.close();
  }
}
