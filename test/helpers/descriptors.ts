/** How many files a process may have open, and what it uses of the processor meanwhile. */
import { existsSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { execa } from "execa";

/**
 * From now on the process gets no new descriptor, unless one of those goes that it has all the time: what it has for
 * a moment (somebody asks for its status) is not counted. Resolves to what undoes that.
 */
export async function exhaustFiles(pid: number): Promise<() => Promise<void>> {
  let free = Number.POSITIVE_INFINITY;
  for (let look = 0; look < 40; look++) {
    free = Math.min(free, lowestFree(pid));
    await sleep(10);
  }
  const limits = /^Max open files +(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, "utf8"))!;
  const set = (count: number | string) => execa("prlimit", ["--pid", String(pid), `--nofile=${count}:`]);
  await set(free);
  return async () => {
    await set(limits[1]!);
  };
}

function lowestFree(pid: number): number {
  let free = 0;
  while (existsSync(`/proc/${pid}/fd/${free}`)) free++;
  return free;
}

/** Share of one processor that the process takes, over two seconds: 1 is all of it. */
export async function processorShare(pid: number): Promise<number> {
  const [before, startedAt] = [ticksOf(pid), performance.now()];
  await sleep(2_000);
  const ticksPerMs = 0.1;
  return (ticksOf(pid) - before) / ((performance.now() - startedAt) * ticksPerMs);
}

/** In user and system mode (proc_pid_stat(5)). */
function ticksOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /s, "").split(" ");
  return Number(fields[11]) + Number(fields[12]);
}
