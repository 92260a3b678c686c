/** What a survey of a host says: one thing looked at, how it is, and what to do about it. Pure. */

/**
 * "ok": as it should be. "note": good to know; dlsm works all the same. "missing": something that is needed is
 * not there. "stray": left behind by dlsm, or cut short.
 */
export const levels = ["ok", "note", "missing", "stray"] as const;
export type Level = (typeof levels)[number];

export interface Finding {
  /** What was looked at, in small letters and dashes; docs/DOCTOR.md lists them. */
  readonly check: string;
  readonly level: Level;
  /** The program, path, process, device or migration that it is about. */
  readonly subject: string;
  readonly message: string;
  /** What to do; null if nothing needs to be done. */
  readonly remedy: string | null;
  /** It is provably left over: `dlsm doctor --clean` removes it. */
  readonly cleanable: boolean;
}

/** What `host.clean` did about a stray. */
export interface Cleaned {
  readonly finding: Finding;
  readonly isGone: boolean;
  /** What was done, or why it could not be done. */
  readonly outcome: string;
}

export function ok(check: string, subject: string, message: string): Finding {
  return { check, level: "ok", subject, message, remedy: null, cleanable: false };
}

export function note(check: string, subject: string, message: string, remedy: string | null): Finding {
  return { check, level: "note", subject, message, remedy, cleanable: false };
}

export function missing(check: string, subject: string, message: string, remedy: string): Finding {
  return { check, level: "missing", subject, message, remedy, cleanable: false };
}

/** What was left behind, but is not provably of no use to anybody. */
export function stray(check: string, subject: string, message: string, remedy: string): Finding {
  return { check, level: "stray", subject, message, remedy, cleanable: false };
}
