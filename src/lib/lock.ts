/** Locks between processes of one machine: flock(2), given back by the kernel when its holder dies. */
import { closeSync, openSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { errnoCode, FailedError, LockedError } from "./errors.ts";
import { tryLock } from "./libc.ts";

/** Takes the lock of a file or folder, which must be there, until `release`; undefined if another has it. */
export function acquire(path: string): { release(): void } | undefined {
  const descriptor = openFolder(path);
  if (tryLock(descriptor)) return { release: () => closeSync(descriptor) };
  closeSync(descriptor);
  return undefined;
}

function openFolder(path: string): number {
  try {
    return openSync(path, "r");
  } catch (cause) {
    if (errnoCode(cause) !== "ENOENT") throw cause;
    throw new FailedError(`${path}, whose lock is needed, was removed`, {
      hint: "give the command again (for a migration under way: dlsm resume), which makes its folder anew",
      cause,
    });
  }
}

export interface LockOptions {
  /** Waits for it at most so long; then throws LockedError with `busy`. */
  readonly timeoutMs: number;
  readonly busy: string;
  /** Aborted: it is not waited for any more, and `work` does not begin. Throws the signal's reason. */
  readonly signal?: AbortSignal;
}

/** Does `work` under the lock. */
export async function withLock<T>(
  path: string,
  { timeoutMs, busy, signal }: LockOptions,
  work: () => Promise<T>,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    signal?.throwIfAborted();
    const lock = acquire(path);
    if (lock !== undefined) {
      try {
        return await work();
      } finally {
        lock.release();
      }
    }
    if (performance.now() >= deadline) throw new LockedError(busy);
    await sleep(20);
  }
}
