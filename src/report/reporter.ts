/** What a command tells its user. Commands know this interface only; text.ts and json.ts print it. */
import type { MigrationStatus } from "./status.ts";

export type Level = "debug" | "info" | "success" | "warn";

/** How a command ended, for both kinds of readers. */
export interface Summary {
  /** One object, plain JSON data. */
  readonly json: unknown;
  readonly lines: readonly string[];
}

export interface Reporter {
  /** What happens, for the log: stderr. */
  message(level: Level, text: string): void;
  /** How far a migration is; called again and again. */
  progress(status: MigrationStatus): void;
  /** What was asked for: stdout. */
  result(summary: Summary): void;
  /** Why the command failed. What is not of the DlsmError family is shown as a bug, with its stack. */
  error(error: unknown): void;
}

/** The part of process.stdout and process.stderr that is used. */
export interface Output {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export interface ReporterOptions {
  readonly stdout: Output;
  readonly stderr: Output;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Print messages of level "debug" too. */
  readonly isVerbose?: boolean;
}
