/**
 * For programs: one JSON object a line on stdout, everything else on stderr. The objects are
 *
 * - a migration's status (it has `id` and `phase`), as often as it is reported,
 * - a command's result,
 * - `{"error": {kind, exitCode, message, hint}}`, where `kind` is one of lib/errors.ts's exitCodes or
 *   "bug", and `hint` may be null.
 */
import type { ConsolaInstance } from "consola";
import { DlsmError, exitCodes, messageOf } from "../lib/errors.ts";
import { createLog, errorText } from "./log.ts";
import type { Level, Output, Reporter, ReporterOptions, Summary } from "./reporter.ts";
import type { MigrationStatus } from "./status.ts";

export class JsonReporter implements Reporter {
  readonly #stdout: Output;
  readonly #log: ConsolaInstance;

  constructor({ stdout, stderr, isVerbose }: ReporterOptions) {
    this.#stdout = stdout;
    this.#log = createLog((text) => void stderr.write(text), { hasColour: false, isVerbose });
  }

  message(level: Level, text: string): void {
    this.#log[level](text);
  }

  progress(status: MigrationStatus): void {
    this.#print(status);
  }

  result({ json }: Summary): void {
    this.#print(json);
  }

  error(error: unknown): void {
    this.#print({ error: errorObject(error) });
    this.#log.error(errorText(error));
  }

  #print(value: unknown): void {
    this.#stdout.write(`${JSON.stringify(value)}\n`);
  }
}

function errorObject(error: unknown): Record<string, unknown> {
  const message = messageOf(error);
  if (!(error instanceof DlsmError)) {
    return { kind: "bug", exitCode: exitCodes.failed, message, hint: null };
  }
  const { exitCode, hint = null } = error;
  const kind = Object.entries(exitCodes).find(([, code]) => code === exitCode)?.[0];
  return { kind, exitCode, message, hint };
}
