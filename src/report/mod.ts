/** What users and programs see of a command. */
import { JsonReporter } from "./json.ts";
import type { Reporter, ReporterOptions } from "./reporter.ts";
import { TextReporter } from "./text.ts";

export type { Level, Output, Reporter, ReporterOptions, Summary } from "./reporter.ts";
export {
  type Condition,
  conditionOf,
  type DiskStatus,
  type MigrationStatus,
  type Phase,
  phases,
  type Place,
  statusLines,
} from "./status.ts";

/** The reporter of a command: `isJson` for `--json`. */
export function createReporter(isJson: boolean, options?: Partial<ReporterOptions>): Reporter {
  const all: ReporterOptions = {
    stdout: process.stdout,
    stderr: process.stderr,
    environment: process.env,
    ...options,
  };
  return isJson ? new JsonReporter(all) : new TextReporter(all);
}
