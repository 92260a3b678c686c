import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { etaSeconds, RateEstimator } from "../../src/lib/rate.ts";
import { FailedError, PreconditionError } from "../../src/lib/errors.ts";
import {
  conditionOf,
  createReporter,
  type DiskStatus,
  type MigrationStatus,
  phases,
  type ReporterOptions,
  statusLines,
} from "../../src/report/mod.ts";
import { formatPercent, progressOf } from "../../src/report/status.ts";
import { progressLine } from "../../src/report/text.ts";

const MiB = 1024 * 1024;

const disk: DiskStatus = {
  source: "/src.img",
  destination: "/dst.img",
  sizeBytes: 2048 * MiB,
  blockBytes: 4096,
  residentBytes: 768 * MiB,
  writtenBytes: 0,
  fetchedBytes: { demand: 0, readahead: 0, sync: 768 * MiB },
  refetchedBytes: 0,
  holeBytes: 0,
  overwrittenBytes: 0,
  verified: null,
  verifiedBytes: 0,
  nbdUri: "nbd+unix:///?socket=/run/dlsm/x",
  device: null,
  enginePid: 42,
  rateBytesPerSecond: 128 * MiB,
  etaSeconds: 10,
  paused: false,
  waitingForSource: false,
  lastError: null,
};

const status: MigrationStatus = {
  id: "m1",
  phase: "active",
  handoff: "now",
  createdAt: "2026-01-01T00:00:00.000Z",
  paused: false,
  waitingForSource: false,
  lastError: null,
  source: { host: "a.example", path: "/src.img" },
  destination: { host: null, path: "/dst.img" },
  disks: [disk],
};

/** A reporter on two recorded outputs. */
function recorded(
  isJson: boolean,
  { terminal = false, columns = 80, environment = {}, isVerbose = false } = {} as {
    terminal?: boolean;
    columns?: number;
    environment?: ReporterOptions["environment"];
    isVerbose?: boolean;
  },
) {
  const out = { text: "", isTTY: terminal, columns, write: (text: string) => (out.text += text) };
  const err = { text: "", isTTY: terminal, columns, write: (text: string) => (err.text += text) };
  return { out, err, reporter: createReporter(isJson, { stdout: out, stderr: err, environment, isVerbose }) };
}

/** What a terminal shows after these bytes: only \r, \n and "erase to the end" are known. */
function screen(text: string): string[] {
  const lines = [""];
  let column = 0;
  // deno-lint-ignore no-control-regex
  for (const [piece] of text.matchAll(/\r|\n|\x1b\[K|[^\r\n\x1b]+/g)) {
    const last = lines.length - 1;
    if (piece === "\n") column = lines.push("") * 0;
    else if (piece === "\r") column = 0;
    else if (piece === "\x1b[K") lines[last] = lines[last].slice(0, column);
    else {
      lines[last] = lines[last].slice(0, column) + piece + lines[last].slice(column + piece.length);
      column += piece.length;
    }
  }
  return lines;
}

const test = suite("report");

test("text without a terminal: messages on stderr, results on stdout, no colour and no progress", () => {
  const { out, err, reporter } = recorded(false);
  reporter.message("info", "starts with `odd` _names_ of %s and %d");
  for (let count = 0; count < 20; count++) reporter.message("info", "same");
  reporter.message("debug", "not shown");
  reporter.progress(status);
  reporter.message("warn", "careful");
  reporter.message("success", "all of it");
  reporter.result({ json: { a: 1 }, lines: ["moved 5 GiB", "in 3 s"] });
  assert.is(out.text, "moved 5 GiB\nin 3 s\n");
  assert.is(
    err.text,
    "starts with `odd` _names_ of %s and %d\n" + "same\n".repeat(20) + "warning: careful\ndone: all of it\n",
  );
});

test("text shows debug messages to who asks for them", () => {
  const { err, reporter } = recorded(false, { isVerbose: true });
  reporter.message("debug", "details");
  assert.is(err.text, "debug: details\n");
});

test("text on a terminal rewrites one progress line below the messages, and clears it at the end", () => {
  const { out, err, reporter } = recorded(false, { terminal: true, environment: { NO_COLOR: "1" } });
  reporter.progress(status);
  reporter.progress({ ...status, disks: [{ ...disk, residentBytes: 1024 * MiB, etaSeconds: null }] });
  assert.equal(screen(err.text), [
    "[############............]   50 %  128 MiB/s, time left unknown",
  ]);
  reporter.message("warn", "the source is slow");
  assert.equal(screen(err.text), [
    "warning: the source is slow",
    "[############............]   50 %  128 MiB/s, time left unknown",
  ]);
  reporter.result({ json: null, lines: ["end"] });
  assert.equal(screen(err.text), ["warning: the source is slow", ""]);
  assert.is(out.text, "end\n");
});

test("text on a narrow terminal never writes a full line", () => {
  const { err, reporter } = recorded(false, { terminal: true, columns: 40 });
  reporter.progress({ ...status, lastError: "x".repeat(500), disks: [disk] });
  assert.is(screen(err.text)[0].length, 39);
});

test("colour is used on a terminal, unless NO_COLOR is set or it is dumb", () => {
  const isColoured = (terminal: boolean, environment: Record<string, string>) => {
    const { err, reporter } = recorded(false, { terminal, environment });
    reporter.message("warn", "w");
    return err.text.includes("\x1b[33m");
  };
  assert.is(isColoured(true, {}), true);
  assert.is(isColoured(true, { NO_COLOR: "" }), true);
  assert.is(isColoured(true, { NO_COLOR: "1" }), false);
  assert.is(isColoured(true, { TERM: "dumb" }), false);
  assert.is(isColoured(false, {}), false);
});

test("text gives an error with what to do, and a stack for a bug only", () => {
  const { err, reporter } = recorded(false);
  reporter.error(new PreconditionError("no tgtd here", { hint: "install tgt" }));
  assert.is(err.text, "error: no tgtd here\n  install tgt\n");
  const bug = recorded(false);
  bug.reporter.error(new TypeError("oops"));
  assert.match(bug.err.text, /^error: dlsm has a bug.*TypeError: oops\n +at /);
});

test("control characters in texts do not reach the terminal", () => {
  const { out, err, reporter } = recorded(false, { terminal: true, environment: { NO_COLOR: "1" } });
  reporter.message("info", "a\x1b[2Jb\u009b1mc\x07");
  reporter.result({ json: 0, lines: ["d\x1b]0;title\x07"] });
  reporter.progress({ ...status, lastError: "e\x1b[1m" });
  assert.is(err.text.replaceAll("\x1b[K", "").includes("\x1b"), false);
  // deno-lint-ignore no-control-regex
  assert.not.match(out.text + err.text, /\u009b|\x07/);
});

test("json prints one object a line on stdout, and everything else on stderr", () => {
  const { out, err, reporter } = recorded(true, { terminal: true });
  reporter.message("info", "starts");
  reporter.progress(status);
  reporter.result({ json: { id: "m1", text: "two\nlines" }, lines: ["for people"] });
  reporter.error(new FailedError("broke", { hint: "resume" }));
  reporter.error(new RangeError("bug"));
  const lines = out.text.trimEnd().split("\n").map((line) => JSON.parse(line));
  assert.equal(lines, [
    status,
    { id: "m1", text: "two\nlines" },
    { error: { kind: "failed", exitCode: 1, message: "broke", hint: "resume" } },
    { error: { kind: "bug", exitCode: 1, message: "bug", hint: null } },
  ]);
  assert.match(err.text, /^starts\nerror: broke\n {2}resume\nerror: dlsm has a bug/);
  // deno-lint-ignore no-control-regex
  assert.not.match(err.text, /\x1b/);
});

test("statusLines() says where it stands and how fast", () => {
  assert.equal(statusLines(status), [
    "m1 active: a.example:/src.img to /dst.img",
    "  37.5 % of 2 GiB is here; 128 MiB/s, about 10 s left",
  ]);
});

test("statusLines() explains what holds it up and what to do", () => {
  const text = (change: Partial<MigrationStatus>) => statusLines({ ...status, ...change }).join("\n");
  assert.match(text({ paused: true }), "the sync is paused: dlsm resume m1");
  assert.match(text({ waitingForSource: true }), "the source cannot be reached");
  const failed = text({ lastError: "disk full" });
  assert.match(failed, "last error: disk full");
  assert.match(failed, "dlsm resume m1 goes on");
  assert.match(text({ phase: "attached" }), "dlsm activate m1");
  assert.match(text({ phase: "released" }), "dlsm cutover m1");
  assert.not.match(text({ phase: "done", lastError: "old", paused: true }), "dlsm resume");
  const differs = { ...disk, verified: "different" } as const;
  assert.match(text({ phase: "synced", disks: [disk, differs] }), "differs from the source, which is kept");
  assert.match(text({ phase: "synced" }), "the source is no longer needed");
  for (const phase of phases) assert.ok(statusLines({ ...status, phase }).length >= 2);
});

test("statusLines() and progressLine() survive no rate, no eta, no disk and an empty one", () => {
  const still = { ...disk, rateBytesPerSecond: 0, etaSeconds: null };
  assert.match(
    statusLines({ ...status, disks: [still] })[1],
    "nothing moves at present, time left unknown",
  );
  for (const disks of [[], [{ ...disk, sizeBytes: 0, residentBytes: 0 }], [still, disk]]) {
    assert.not.match(
      statusLines({ ...status, disks }).join() + progressLine({ ...status, disks }),
      /NaN|Infinity/,
    );
  }
});

test("progressOf() sums disks, and waits for the slowest", () => {
  const ready = { ...disk, residentBytes: disk.sizeBytes, etaSeconds: null, rateBytesPerSecond: 0 };
  const slow = { ...disk, etaSeconds: 99 };
  assert.is(progressOf({ disks: [disk, slow, ready] }).etaSeconds, 99);
  assert.is(progressOf({ disks: [disk, slow, ready] }).residentBytes, 2 * 768 * MiB + 2048 * MiB);
  assert.is(progressOf({ disks: [disk, { ...disk, etaSeconds: null }] }).etaSeconds, null);
  assert.is(progressOf({ disks: [ready] }).etaSeconds, 0);
});

test("formatPercent() is 100 for all of it only", () => {
  assert.is(formatPercent(2 ** 50 - 1, 2 ** 50), "99.9 %");
  assert.is(formatPercent(2 ** 50, 2 ** 50), "100 %");
  assert.is(formatPercent(0, 5), "0 %");
});

test("conditionOf() takes what holds for any disk, and the first error", () => {
  const fine = { paused: false, waitingForSource: false, lastError: null };
  assert.equal(conditionOf([fine]), fine);
  assert.equal(conditionOf([]), fine);
  assert.equal(conditionOf([fine, { paused: true, waitingForSource: true, lastError: "b" }]), {
    paused: true,
    waitingForSource: true,
    lastError: "b",
  });
});

test("RateEstimator gives a steady rate at once, however often it is fed", () => {
  fc.assert(fc.property(
    fc.integer({ min: 1, max: 10_000 }),
    fc.array(fc.integer({ min: 1, max: 20_000 }), { minLength: 1, maxLength: 30 }),
    (bytesPerMs, gaps) => {
      const rate = new RateEstimator();
      let timeMs = 0;
      rate.add(0, 0);
      for (const gap of gaps) rate.add(timeMs += gap, timeMs * bytesPerMs);
      const expected = bytesPerMs * 1000;
      assert.ok(Math.abs(rate.bytesPerSecond - expected) < expected * 1e-6, `${rate.bytesPerSecond}`);
    },
  ));
});

test("RateEstimator follows a change, falls to zero, and starts anew when the count falls", () => {
  const rate = new RateEstimator(1000);
  assert.is(rate.bytesPerSecond, 0);
  rate.add(0, 500);
  assert.is(rate.bytesPerSecond, 0);
  rate.add(1000, 10_500);
  assert.is(Math.round(rate.bytesPerSecond), 10_000);
  rate.add(1000, 99_999);
  assert.is(Math.round(rate.bytesPerSecond), 10_000);
  rate.add(2000, 10_500);
  assert.ok(rate.bytesPerSecond > 2000 && rate.bytesPerSecond < 8000);
  rate.add(60_000, 10_500);
  assert.is(rate.bytesPerSecond, 0);
  rate.add(61_000, 0);
  assert.is(rate.bytesPerSecond, 0);
  rate.add(62_000, 5000);
  assert.is(Math.round(rate.bytesPerSecond), 5000);
});

test("RateEstimator weighs by time, not by how often it is fed", () => {
  const rateOf = (times: readonly number[]) => {
    const rate = new RateEstimator(1000);
    // 1 byte/ms for a second, then 5.
    for (const timeMs of times) rate.add(timeMs, timeMs <= 1000 ? timeMs : 1000 + (timeMs - 1000) * 5);
    return rate.bytesPerSecond;
  };
  const rarely = rateOf([0, 1000, 2000]);
  const often = rateOf([0, 1000, ...Array.from({ length: 100 }, (_, index) => 1010 + index * 10)]);
  assert.ok(Math.abs(rarely - often) < 1e-6, `${rarely} and ${often}`);
});

test("etaSeconds() is null when nothing moves, 0 when nothing is left", () => {
  assert.equal([etaSeconds(100, 0), etaSeconds(0, 0), etaSeconds(101, 10), etaSeconds(-5, 10)], [
    null,
    0,
    11,
    0,
  ]);
});

test("a reporter goes on when its outputs throw: nobody reads them any more", () => {
  let tries = 0;
  const gone = {
    isTTY: true,
    write: () => {
      tries++;
      throw new Error("Input/output error (os error 5)");
    },
  };
  for (const isJson of [false, true]) {
    const reporter = createReporter(isJson, { stdout: gone, stderr: gone, environment: {} });
    tries = 0;
    reporter.message("warn", "is anybody there?");
    reporter.progress(status);
    reporter.result({ json: {}, lines: ["the end"] });
    reporter.error(new FailedError("no"));
    assert.ok(tries >= 4, `${tries}`);
  }
});

test.run();
