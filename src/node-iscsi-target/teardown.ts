/**
 * Taking a target away in the one safe order: no new logins, no sessions, no target, no accounts.
 *
 * Any other order has a moment in which it is wrong: a target without its accounts lets anybody in, and a
 * forced delete with I/O in flight succeeds by halves.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Control } from "./control.ts";
import { isTgtError, TgtError } from "./errors.ts";
import type { Target } from "./types.ts";

/**
 * How long sessions may take to end. Most end at once. A peer that takes nothing any more keeps its
 * connection, which tgtd has to write to before it closes it, until the pings go unanswered.
 */
export function drainTimeoutMs(target: Target): number {
  return 1000 * target.nopIntervalSeconds * (target.nopCount + 1) + 5000;
}

/** Throws TgtError "targetActive" if sessions do not end in time. Can be repeated. */
export async function tearDown(
  control: Control,
  target: Target,
  timeoutMs = drainTimeoutMs(target),
): Promise<void> {
  for (const address of target.allowed) {
    await unless("noBinding", control.denyAddress(target.tid, address));
  }
  await dropSessions(control, target, timeoutMs);
  await unless("noTarget", control.deleteTarget(target.tid, true));

  const remaining = await control.targets();
  if (remaining.some((other) => other.name === target.name)) {
    throw new TgtError("targetActive", `target ${target.name} is still there after it was deleted`);
  }
  const stillBound = new Set(remaining.flatMap((other) => other.accounts.map((account) => account.user)));
  for (const { user } of target.accounts) {
    if (!stillBound.has(user)) await unless("noUser", control.deleteAccount(user));
  }
}

async function dropSessions(control: Control, target: Target, timeoutMs: number): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  for (let waitMs = 5;; waitMs = Math.min(2 * waitMs, 200)) {
    const connections = await control.connections(target.tid);
    if (connections.length === 0) return;
    if (performance.now() >= deadline) {
      throw new TgtError("targetActive", `target ${target.name}: ${connections.length} sessions do not end`, {
        hint: "Their peers take no data; stop the daemon to be rid of them.",
      });
    }
    for (const { sid, cid } of connections) {
      await unless("noSession", control.deleteConnection(target.tid, sid, cid));
    }
    await sleep(waitMs);
  }
}

/** What is not there any more need not be taken away. */
async function unless(reason: "noBinding" | "noTarget" | "noSession" | "noUser", call: Promise<void>) {
  try {
    await call;
  } catch (error) {
    if (!isTgtError(error, reason)) throw error;
  }
}
