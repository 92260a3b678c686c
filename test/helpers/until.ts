/** Waiting for what comes about by itself. */
import { setTimeout as sleep } from "node:timers/promises";

/** Polls until it is so. */
export async function until(isSo: () => boolean, what: string, timeoutMs = 30_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!isSo()) {
    if (performance.now() > deadline) throw new Error(`never: ${what}`);
    await sleep(10);
  }
}
