/** What users and programs see of a command. */
import { JsonReporter } from "./json.ts";
import type { Output, Reporter, ReporterOptions } from "./reporter.ts";
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

/** The reporter of a command: `isJson` for `--json`. It never throws: what is reported goes on without readers. */
export function createReporter(isJson: boolean, options?: Partial<ReporterOptions>): Reporter {
  const all: ReporterOptions = {
    environment: process.env,
    ...options,
    stdout: untroubled(options?.stdout ?? process.stdout),
    stderr: untroubled(options?.stderr ?? process.stderr),
  };
  return isJson ? new JsonReporter(all) : new TextReporter(all);
}

/** A terminal that was closed: Node tells of it with an event of the stream, Deno throws. */
function untroubled(output: Output): Output {
  return {
    write: (text) => {
      try {
        output.write(text);
      } catch {
        // Nobody is there to be told.
      }
    },
    get isTTY() {
      return output.isTTY === true;
    },
    get columns() {
      return output.columns ?? 0;
    },
  };
}
