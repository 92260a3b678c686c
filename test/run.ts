/**
 * The test runner: `node test/run.ts [PART-OF-A-FILE-NAME …] [--without PART …]
 * [--jobs N] [--timeout SECONDS]`, or the same
 * under `deno run -A`.
 *
 * One process a file, so that a leaked handle, a crash or a global of one file cannot touch another. A file
 * passes only if its process ends by itself with exit code 0 and its summary says that at least one test
 * ran and that all of them passed: uvu alone exits 0 for a forgotten `run()`, a throwing `after.each` or
 * `throw undefined`. A file that hangs is killed. `.only` is refused, because it hides failures.
 * The last line is `N passed, N failed` (`, N skipped` follows if any were).
 */
import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { type FileResult, judge } from "./helpers/verdict.ts";

// One more than there are processors: much of what migrations between hosts do is waiting.
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    jobs: { type: "string", default: String(availableParallelism() + 1) },
    timeout: { type: "string", default: "480" },
    without: { type: "string", multiple: true, default: [] },
  },
});

const root = join(import.meta.dirname!, "..");
const runtimeArguments = "Deno" in globalThis ? ["run", "-A"] : ["--disable-warning=ExperimentalWarning"];

/** The command line is started hundreds of times: most of what a start from source costs is compiling. */
const compileCache = join(root, "node_modules", ".cache", "compile");

const files = readdirSync(import.meta.dirname!, { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".test.ts"))
  .filter((name) => positionals.length === 0 || positionals.some((part) => name.includes(part)))
  .filter((name) => !values.without.some((part) => name.includes(part)))
  .sort(longestFirst);

/** So that none of them is left to run alone at the end: whole migrations, those between two hosts before all. */
function longestFirst(a: string, b: string): number {
  const rank = (name: string) =>
    ["integration/two-hosts", "integration/"].findIndex((start) => name.startsWith(start));
  return (rank(a) + 3) % 3 - (rank(b) + 3) % 3 || a.localeCompare(b);
}

function runFile(name: string): Promise<FileResult> {
  const path = join(import.meta.dirname!, name);
  const startedAt = performance.now();
  return new Promise((resolve) => {
    // A process group of its own: what a hung test left running is killed with it.
    const child = spawn(process.execPath, [...runtimeArguments, relative(root, path)], {
      cwd: root,
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
      env: { NODE_COMPILE_CACHE: compileCache, ...process.env, NO_COLOR: "1", FORCE_COLOR: "0" },
    });
    running.add(child.pid!);
    let output = "";
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      killGroup(child.pid!);
    }, Number(values.timeout) * 1000);
    child.stdout.on("data", (chunk) => (output += chunk));
    child.stderr.on("data", (chunk) => (output += chunk));
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      killGroup(child.pid!);
      running.delete(child.pid!);
      const seconds = (performance.now() - startedAt) / 1000;
      resolve(judge({ name, output, code, signal, timedOut, seconds, source: readFileSync(path, "utf8") }));
    });
  });
}

/** Groups that run now: they are not the terminal's, so Ctrl-C and a CI's time limit must be passed on. */
const running = new Set<number>();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    for (const pid of running) killGroup(pid);
    process.exit(1);
  });
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // Nothing of the group is left, as it should be.
  }
}

const results: FileResult[] = [];
const queue = [...files];
async function worker(): Promise<void> {
  for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
    const result = await runFile(name);
    results.push(result);
    const verdict = result.problem === undefined ? "ok  " : "FAIL";
    const skipped = result.skipped > 0 ? `, ${result.skipped} SKIPPED` : "";
    console.log(`${verdict} ${name} (${result.passed} passed${skipped}, ${result.seconds.toFixed(1)} s)`);
    for (const line of result.skipReasons) console.log(`     skipped: ${line}`);
    if (result.problem !== undefined) console.log(`     ${result.problem}\n${result.output}`);
  }
}
await Promise.all(Array.from({ length: Math.max(1, Number(values.jobs)) }, worker));

const sum = (pick: (result: FileResult) => number) =>
  results.reduce((total, result) => total + pick(result), 0);
const passed = sum((result) => result.passed);
const failed = sum((result) => result.failed);
const skipped = sum((result) => result.skipped);
if (files.length === 0) console.log(`no test file matches ${positionals.join(" ")}`);
for (const result of results) {
  if (result.problem !== undefined) console.log(`FAIL ${result.name}: ${result.problem}`);
}
console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
