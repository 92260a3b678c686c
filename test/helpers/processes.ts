/** The processes behind a migration, by what they are, and their end. */
import { readFileSync } from "node:fs";
import { type Dlsm, kill } from "./dlsm.ts";
import { until } from "./until.ts";

export { until };

export type Part = "engine" | "tgtd" | "driver";

const looksLike: Record<Part, RegExp> = {
  engine: /(^| )engine \//,
  tgtd: /(^|\/)tgtd /,
  /** In the background, or a command in the foreground. */
  driver: / (drive|migrate|resume) /,
};

export function pidsOf(dlsm: Dlsm, part: Part): number[] {
  return dlsm.processes().filter(({ command }) => looksLike[part].test(command)).map(({ pid }) => pid);
}

/**
 * `kill -9`, in this order, when `moment` has come; resolves when they are gone. Throws if one of them does not
 * run. They are looked up before, so that nothing comes between the moment and the kill.
 */
export async function killParts(
  dlsm: Dlsm,
  parts: readonly Part[],
  moment?: () => Promise<void>,
): Promise<void> {
  const pids = parts.flatMap((part) => {
    const found = pidsOf(dlsm, part);
    if (found.length === 0) throw new Error(`no ${part} to kill: ${JSON.stringify(dlsm.processes())}`);
    return found;
  });
  await moment?.();
  for (const pid of pids) kill(pid, "SIGKILL");
  await until(() => !pids.some(isThere), "they end");
}

function isThere(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) Z/s.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

/** The promise's outcome; throws if there is none in time. */
export async function within<T>(promise: Promise<T>, what: string, timeoutMs = 60_000): Promise<T> {
  let timer: ReturnType<typeof setTimeout>;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${timeoutMs} ms: ${what}`)), timeoutMs);
  });
  return await Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
