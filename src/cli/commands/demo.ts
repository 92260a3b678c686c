import { tmpdir } from "node:os";
import { defineCommand } from "citty";
import { type DemoResult, runDemo, summaryOf } from "../../demo/mod.ts";
import { DifferenceError, FailedError, InterruptedError } from "../../lib/errors.ts";
import { parseSize } from "../../lib/units.ts";
import type { Reporter } from "../../report/mod.ts";
import { jsonOption } from "../options.ts";
import { reporterFor } from "../session.ts";

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export const demo = defineCommand({
  meta: { name: "demo", description: "Migrate a sample disk on this machine while it is used, and check it" },
  args: {
    folder: {
      type: "string",
      valueHint: "DIR",
      description: "Where to make its temporary folder (TMPDIR or /tmp if not given)",
    },
    size: { type: "string", default: "512MiB", valueHint: "SIZE", description: "Of the disk, 64MiB or more" },
    keep: { type: "boolean", description: "Keep the folder with both disks" },
    ...jsonOption,
  },
  async run({ args }) {
    const reporter = reporterFor(args);
    const options = {
      parentFolder: args.folder ?? tmpdir(),
      sizeBytes: parseSize(args.size),
      keep: args.keep === true,
    };
    const whatGoes = options.keep ? "the migration was taken away" : "all that the demo made was removed";
    const result = await interruptible(
      `interrupted: ${whatGoes}`,
      (signal) => runDemo(options, args.json ? withoutProgress(reporter) : reporter, signal),
    );
    reporter.result(summaryOf(result));
    requirePassed(result);
  },
});

/** Ctrl-C and its like, or a reader of the output that went away, end the demo; what it made goes first. */
async function interruptible<T>(message: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const interruption = new AbortController();
  const interrupt = () => interruption.abort();
  for (const signal of signals) process.on(signal, interrupt);
  process.stderr.on("error", interrupt);
  try {
    return await work(interruption.signal);
  } catch (error) {
    if (!interruption.signal.aborted) throw error;
    throw new InterruptedError(message, { cause: error });
  } finally {
    for (const signal of signals) process.removeListener(signal, interrupt);
    process.stderr.removeListener("error", interrupt);
  }
}

/** One object is printed, at the end. */
function withoutProgress(reporter: Reporter): Reporter {
  return {
    message: (level, text) => reporter.message(level, text),
    progress() {},
    result: (summary) => reporter.result(summary),
    error: (error) => reporter.error(error),
  };
}

function requirePassed({ checks }: DemoResult): void {
  const failed = checks.filter((check) => !check.isPassed);
  if (failed.length === 0) return;
  const message = `the demo failed: ${failed.map(({ text }) => text).join("; ")}`;
  const hint = "please report it; dlsm demo --keep keeps both disks for a look at them";
  const isTidiness = failed.every(({ name }) => name === "nothingLeft" || name === "movedOnce");
  throw isTidiness ? new FailedError(message, { hint }) : new DifferenceError(message, { hint });
}
