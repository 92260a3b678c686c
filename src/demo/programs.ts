/** The programs that a demo runs, and running those that do one thing and end. */
import { execa } from "execa";
import { FailedError, PreconditionError } from "../lib/errors.ts";
import { findProgram } from "../lib/program.ts";

/** Each with the Debian package that has it. */
const packages = {
  tgtd: "tgt",
  tgtadm: "tgt",
  "qemu-io": "qemu-utils",
  mke2fs: "e2fsprogs",
  e2fsck: "e2fsprogs",
  debugfs: "e2fsprogs",
} as const;

/** Full paths. */
export type Programs = Readonly<Record<keyof typeof packages, string>>;

/** Throws PreconditionError that names all that is missing, and how to install it. */
export function findPrograms(): Programs {
  const found = Object.keys(packages).map((name) => [name, findProgram(name)] as const);
  const missing = found.filter(([, path]) => path === undefined).map(([name]) =>
    name as keyof typeof packages
  );
  if (missing.length > 0) {
    const wanted = [...new Set(missing.map((name) => packages[name]))];
    throw new PreconditionError(
      `dlsm demo needs what is not installed here: ${missing.join(", ")}`,
      { hint: `as root: apt-get install --no-install-recommends ${wanted.join(" ")}` },
    );
  }
  return Object.fromEntries(found) as Programs;
}

export interface Ran {
  readonly exitCode: number | undefined;
  /** Both streams, as they came. */
  readonly output: string;
}

/**
 * Runs a program in `folder` to its end, whatever its exit code is. Not in this process group: at Ctrl-C the
 * demo ends it, not the terminal.
 */
export async function run(
  program: string,
  args: readonly string[],
  { folder, signal }: { readonly folder: string; readonly signal: AbortSignal },
): Promise<Ran> {
  const { exitCode, all, failed, shortMessage } = await execa(program, args, {
    cwd: folder,
    all: true,
    stdin: "ignore",
    detached: true,
    reject: false,
    cancelSignal: signal,
    env: { LC_ALL: "C" },
  });
  signal.throwIfAborted();
  if (failed && exitCode === undefined) throw new FailedError(`${shortMessage} ${all}`.trim());
  return { exitCode, output: all };
}
