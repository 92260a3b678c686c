/** What the doctor says of a host, and how people read it. Pure. */
import type { Finding } from "../role/mod.ts";

export interface HostFinding extends Finding {
  /** As it was named; this machine's own name if none was. */
  readonly host: string;
  /** What was done about it, with --clean; null: nothing. */
  readonly cleaned: string | null;
}

export function of(host: string, finding: Finding, cleaned: string | null = null): HostFinding {
  const { check, level, subject, message, remedy, cleanable } = finding;
  return { host, check, level, subject, message, remedy, cleanable, cleaned };
}

/** One line for each finding, and what to do at its end. */
export function findingLine({ check, level, message, remedy, cleaned }: HostFinding): string {
  const word = cleaned === null ? level : "cleaned";
  const toDo = cleaned ?? (remedy === null ? undefined : `to do: ${remedy}`);
  return `  ${word.padEnd(7)}  ${check}: ${message}${toDo === undefined ? "" : `; ${toDo}`}`;
}
