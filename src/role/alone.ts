/** One request at a time changes what a host's roles have, whichever process serves it. */
import { AsyncLocalStorage } from "node:async_hooks";
import { hostname } from "node:os";
import { withLock } from "../lib/lock.ts";
import { lockPath, type RoleFolders } from "./layout.ts";

const lockTimeoutMs = 60_000;
const callers = new AsyncLocalStorage<AbortSignal>();

/** Serves a request. `caller` is aborted when nobody waits for the answer any more. */
export function servedFor<T>(caller: AbortSignal, work: () => Promise<T>): Promise<T> {
  return callers.run(caller, work);
}

/**
 * Does `work` under the host's lock. What has begun goes on to its end; what still waits when its caller is gone
 * does not begin: whoever comes after would undo what is not there yet. Throws LockedError after a minute.
 */
export function alone<T>(folders: RoleFolders, work: () => Promise<T>): Promise<T> {
  const options = {
    timeoutMs: lockTimeoutMs,
    busy: `another dlsm is busy on ${hostname()}`,
    signal: callers.getStore(),
  };
  return withLock(lockPath(folders), options, work);
}
