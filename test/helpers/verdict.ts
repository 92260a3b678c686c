/** Judges what the process of one test file did. Pure, so that the runner itself is tested. */

export interface FileRun {
  readonly name: string;
  readonly source: string;
  readonly output: string;
  readonly code: number | null;
  readonly signal: string | null;
  readonly timedOut: boolean;
  readonly seconds: number;
}

export interface FileResult {
  readonly name: string;
  readonly output: string;
  readonly seconds: number;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly skipReasons: readonly string[];
  /** Why the file counts as failed; undefined if it passed. */
  readonly problem: string | undefined;
}

/** A line that a test prints when it cannot run here: `SKIPPED name: reason`. */
export const skipMarker = "SKIPPED ";

export function judge(run: FileRun): FileResult {
  const count = (label: string) => {
    // One summary per suite, all added up.
    const found = [...run.output.matchAll(new RegExp(`^ {2}${label}: +(\\d+)$`, "gm"))];
    return found.reduce((total, match) => total + Number(match[1]), 0);
  };
  const total = count("Total");
  const passed = count("Passed");
  const skipped = count("Skipped");
  const problem = problemOf(run, total, passed);
  return {
    name: run.name,
    output: run.output,
    seconds: run.seconds,
    passed,
    failed: problem === undefined ? 0 : Math.max(1, total - passed),
    skipped,
    skipReasons: run.output.split("\n").filter((line) => line.startsWith(skipMarker)).map((line) =>
      line.slice(skipMarker.length)
    ),
    problem,
  };
}

function problemOf(run: FileRun, total: number, passed: number): string | undefined {
  if (/^\s*\w+\.only\(/m.test(run.source)) return "uses .only, which hides failures";
  if (run.timedOut) return `still running after ${run.seconds.toFixed(0)} s: killed`;
  if (run.code !== 0) return `ended with ${run.signal ?? `exit code ${run.code}`}`;
  const suites = [...run.source.matchAll(/^const \w+ = suite[<(]/gm)].length;
  const runs = [...run.source.matchAll(/^\w+\.run\(\);?$/gm)].length;
  if (runs < suites || runs === 0) return "a suite's .run() is missing: its tests never ran";
  const summaries = [...run.output.matchAll(/^ {2}Total: /gm)].length;
  if (summaries < runs) return `ended before all its suites did (${summaries} of ${runs} summaries)`;
  if (total === 0 && !run.output.includes(skipMarker)) return "ran no test";
  if (passed !== total) return `${total - passed} of ${total} tests failed`;
  return undefined;
}
