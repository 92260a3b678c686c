/**
 * The one family of errors that people see.
 *
 * Each says what failed, on which host and device, and what the user can do about it (`hint`). Its class
 * decides the exit code, which is documented and stable. Anything that is not a `DlsmError` is a bug and is
 * reported as one. Libraries below (iSCSI, NBD, tgt) have typed errors of their own, which the roles wrap.
 */

/** Exit codes of the `dlsm` command; stable. */
export const exitCodes = {
  done: 0,
  failed: 1,
  usage: 2,
  precondition: 3,
  interrupted: 4,
  difference: 5,
  locked: 6,
} as const;

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

export interface ErrorDetails {
  /** What the user can do; one sentence. */
  readonly hint?: string;
  readonly cause?: unknown;
}

export abstract class DlsmError extends Error {
  abstract readonly exitCode: ExitCode;
  readonly hint: string | undefined;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.hint = details.hint;
  }
}

/** The run failed part-way; `dlsm resume` goes on from there. */
export class FailedError extends DlsmError {
  override readonly exitCode = exitCodes.failed;
}

/** The command line is wrong. */
export class UsageError extends DlsmError {
  override readonly exitCode = exitCodes.usage;
}

/** Something needed is missing or in the way; nothing was changed. */
export class PreconditionError extends DlsmError {
  override readonly exitCode = exitCodes.precondition;
}

/** The command was interrupted; the work goes on in the background or with `dlsm resume`. */
export class InterruptedError extends DlsmError {
  override readonly exitCode = exitCodes.interrupted;
}

/** Source and destination differ where they must not. */
export class DifferenceError extends DlsmError {
  override readonly exitCode = exitCodes.difference;
}

/** Another run holds the disk or the migration. */
export class LockedError extends DlsmError {
  override readonly exitCode = exitCodes.locked;
}

export interface UnreachableDetails extends ErrorDetails {
  /** The host as it was asked for, such as "root@node1". */
  readonly host: string;
  /** Whether this process has talked with it before: then something may have been changed there. */
  readonly wasReached: boolean;
}

/**
 * Another host cannot be asked: ssh or dlsm there does not come up, or the connection was lost. Whether a
 * request that was under way had effect is unknown.
 */
export class UnreachableError extends DlsmError {
  override readonly exitCode: ExitCode;
  readonly host: string;

  constructor(message: string, { host, wasReached, ...details }: UnreachableDetails) {
    super(message, details);
    this.host = host;
    this.exitCode = wasReached ? exitCodes.failed : exitCodes.precondition;
  }
}

/** The error's code as Node sets it on system errors ("ENOENT", "EACCES", …), or undefined. */
export function errnoCode(error: unknown): string | undefined {
  if (error instanceof Error && "code" in error && typeof error.code === "string") return error.code;
  return undefined;
}

/** A readable message out of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What the system can refuse at any time and is nobody's bug: what it is, and what to do before trying again. */
const refusals: Readonly<Record<string, readonly [what: string, remedy: string]>> = {
  EMFILE: ["dlsm has as many files open as it may", "raise the limit (ulimit -n, LimitNOFILE= of a unit)"],
  ENFILE: ["the machine has too many open files", "raise fs.file-max, or end what has so many open"],
  ENOSPC: ["a file system is full", "make space there"],
  EDQUOT: ["this user's quota is used up", "make space there, or raise the quota"],
  EROFS: ["a file system is read-only", "make it writable, and see dmesg if it should be"],
  EACCES: ["this user may not do that", "become a user who may"],
  EPERM: [
    "the system does not allow that",
    "become a user who may (not even root may change an immutable file)",
  ],
  EIO: ["reading or writing failed", "see what dmesg says of the disk, and mend it"],
  ENOMEM: ["the machine has no memory left", "end what has so much of it"],
};

/** What the system refused, as an error for people; undefined for every other error. */
export function refusalOf(error: unknown): FailedError | undefined {
  const code = errnoCode(error);
  if (code === undefined || !Object.hasOwn(refusals, code)) return undefined;
  const [what, remedy] = refusals[code];
  return new FailedError(`${what}: ${messageOf(error)}`, {
    hint: `${remedy}, and give the command again`,
    cause: error,
  });
}
