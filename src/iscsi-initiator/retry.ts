/** When a command or a connection is tried again, and how long is waited before it. Pure. */
import { type IscsiError, ScsiError, scsiStatus, TargetFailureError } from "./errors.ts";
import { senseKeys } from "./sense.ts";
import type { Task } from "./task.ts";

/** How often one command is sent again before its error counts, by cause. */
const limits = { attention: 16, busy: 20, failure: 5 } as const;

export type RetryCause = keyof typeof limits;

const busyDelayMinMs = 10;
const busyDelayMaxMs = 1000;

/** `min` doubled `attempt` times, at most `max`; between half of that and all of it. */
export function backoffMs(attempt: number, minMs: number, maxMs: number, random: () => number): number {
  const wholeMs = Math.min(maxMs, minMs * 2 ** Math.min(attempt, 30));
  return wholeMs * (0.5 + random() / 2);
}

export interface Retry {
  readonly cause: RetryCause;
  readonly delayMs: number;
}

/** Whether `error` is a passing condition; counts the retry in `task`. Undefined: the error stands. */
export function planRetry(task: Task, error: IscsiError, random: () => number): Retry | undefined {
  const cause = error instanceof TargetFailureError
    ? "failure"
    : error instanceof ScsiError
    ? retryCause(error)
    : undefined;
  if (cause === undefined || task.retries[cause] >= limits[cause]) return undefined;
  const attempt = task.retries[cause]++;
  const delayMs = cause === "attention" ? 0 : backoffMs(attempt, busyDelayMinMs, busyDelayMaxMs, random);
  return { cause, delayMs };
}

function retryCause(error: ScsiError): RetryCause | undefined {
  const { status, sense } = error;
  if (status === scsiStatus.busy || status === scsiStatus.taskSetFull) return "busy";
  if (status === scsiStatus.taskAborted) return "failure";
  if (sense === undefined) return undefined;
  // A deferred error is about somebody's earlier command; this one was not carried out (SPC-4 §4.5.5).
  if (sense.key === senseKeys.unitAttention || sense.deferred) return "attention";
  const isBecomingReady = sense.key === senseKeys.notReady && sense.asc === 0x04 &&
    (sense.ascq === 0x01 || sense.ascq === 0x07);
  if (isBecomingReady) return "busy";
  // Data counts only after GOOD, so a recovered error is read once more.
  const isPassing = sense.key === senseKeys.abortedCommand || sense.key === senseKeys.recoveredError ||
    sense.key === senseKeys.noSense;
  return isPassing ? "failure" : undefined;
}
