/** The log: consola, with a plain printer of our own. */
import { type ConsolaInstance, createConsola, LogLevels } from "consola";
import { styleText } from "node:util";
import { DlsmError } from "../lib/errors.ts";
import type { Output, ReporterOptions } from "./reporter.ts";

/** Whether colours may be used: on a terminal, unless NO_COLOR (no-color.org) or a dumb one says no. */
export function usesColour(output: Output, environment: ReporterOptions["environment"]): boolean {
  return output.isTTY === true && !environment.NO_COLOR && environment.TERM !== "dumb";
}

const prefixes: Readonly<Record<string, readonly ["red" | "yellow" | "green" | "gray", string]>> = {
  error: ["red", "error: "],
  warn: ["yellow", "warning: "],
  success: ["green", "done: "],
  debug: ["gray", "debug: "],
};

/**
 * A consola that hands whole lines to `write`. Its own printers are not used: on a terminal they take
 * backticks and underscores, which are common in paths, for markup. No line is collapsed into an equal one.
 */
export function createLog(
  write: (text: string) => void,
  { hasColour, isVerbose = false }: { readonly hasColour: boolean; readonly isVerbose?: boolean },
): ConsolaInstance {
  return createConsola({
    level: isVerbose ? LogLevels.debug : LogLevels.info,
    throttle: 0,
    reporters: [{
      log({ type, args }) {
        const [colour, prefix] = prefixes[type] ?? ["gray", ""];
        const head = hasColour && prefix !== "" ? paint(colour, prefix) : prefix;
        write(`${head}${args.map((argument) => harmless(String(argument))).join(" ")}\n`);
      },
    }],
  });
}

function paint(colour: "red" | "yellow" | "green" | "gray", text: string): string {
  return styleText(colour, text, { validateStream: false });
}

/** Without what a terminal would obey: texts carry paths and other programs' words. */
export function harmless(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, "?");
}

/** An error for people: the message, and what to do; a stack only for what is a bug. */
export function errorText(error: unknown): string {
  if (error instanceof DlsmError) {
    return error.hint === undefined ? error.message : `${error.message}\n  ${error.hint}`;
  }
  const detail = error instanceof Error ? error.stack ?? error.message : String(error);
  return `dlsm has a bug, please report it: ${detail}`;
}
