/** Locks between processes of one machine: flock(2), given back by the kernel when its holder dies. */
import { closeSync, openSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { LockedError } from "./errors.ts";
import { tryLock } from "./libc.ts";

/** Takes the lock of a file or folder, which must be there, until `release`; undefined if another has it. */
export function acquire(path: string): { release(): void } | undefined {
  const descriptor = openSync(path, "r");
  if (tryLock(descriptor)) return { release: () => closeSync(descriptor) };
  closeSync(descriptor);
  return undefined;
}

/** Does `work` under the lock. Waits for it at most `timeoutMs`; then throws LockedError with `busy`. */
export async function withLock<T>(
  path: string,
  timeoutMs: number,
  busy: string,
  work: () => Promise<T>,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
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
