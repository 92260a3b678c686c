/**
 * For people: log and progress on stderr, results on stdout. The progress line is rewritten in place, and
 * exists on a terminal only.
 */
import type { ConsolaInstance } from "consola";
import { createLog, errorText, harmless, usesColour } from "./log.ts";
import type { Level, Output, Reporter, ReporterOptions, Summary } from "./reporter.ts";
import { formatPace, formatPercent, type MigrationStatus, progressOf } from "./status.ts";

const barCells = 24;
const defaultColumns = 80;
/** Back to the first column, and erase to the end of the line. */
const eraseLine = "\r\x1b[K";

export class TextReporter implements Reporter {
  readonly #stdout: Output;
  readonly #stderr: Output;
  readonly #log: ConsolaInstance;
  readonly #isTerminal: boolean;
  /** The progress line that stands on the terminal; "" if none does. */
  #line = "";

  constructor({ stdout, stderr, environment, isVerbose }: ReporterOptions) {
    this.#stdout = stdout;
    this.#stderr = stderr;
    this.#isTerminal = stderr.isTTY === true && environment.TERM !== "dumb";
    this.#log = createLog((text) => this.#print(text), {
      hasColour: usesColour(stderr, environment),
      isVerbose,
    });
  }

  message(level: Level, text: string): void {
    this.#log[level](text);
  }

  progress(status: MigrationStatus): void {
    if (!this.#isTerminal) return;
    // One column is left free: a full line would wrap, and could not be erased.
    const line = progressLine(status).slice(0, (this.#stderr.columns || defaultColumns) - 1);
    if (line === this.#line) return;
    this.#line = line;
    this.#stderr.write(eraseLine + line);
  }

  result({ lines }: Summary): void {
    this.#clearProgress();
    for (const line of lines) this.#stdout.write(`${harmless(line)}\n`);
  }

  error(error: unknown): void {
    this.#clearProgress();
    this.#log.error(errorText(error));
  }

  /** A message goes above the progress line. */
  #print(text: string): void {
    const line = this.#line;
    this.#stderr.write(line === "" ? text : eraseLine + text + line);
  }

  #clearProgress(): void {
    if (this.#line === "") return;
    this.#line = "";
    this.#stderr.write(eraseLine);
  }
}

/** `[#########...............]  37.5 %  120 MiB/s, about 9 s left`; what holds it up instead of the pace. */
export function progressLine(status: MigrationStatus): string {
  const progress = progressOf(status);
  const { sizeBytes, residentBytes } = progress;
  const share = sizeBytes === 0 ? 1 : Math.min(1, residentBytes / sizeBytes);
  const filled = Math.floor(share * barCells);
  const bar = `[${"#".repeat(filled)}${".".repeat(barCells - filled)}]`;
  return `${bar} ${formatPercent(residentBytes, sizeBytes).padStart(6)}  ${harmless(condition())}`;

  function condition(): string {
    if (status.phase !== "active") return status.phase;
    if (status.lastError !== null) return `stopped: ${status.lastError}`;
    if (status.waitingForSource) return "waiting for the source";
    return status.paused ? "paused" : formatPace(progress);
  }
}
