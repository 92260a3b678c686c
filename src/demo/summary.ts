/** What a demo found, for people and for programs. Pure. */
import { formatDuration, formatSize } from "../lib/units.ts";
import type { Summary } from "../report/mod.ts";
import type { DemoResult } from "./demo.ts";

export function summaryOf(result: DemoResult): Summary {
  const { layout, account, status, checks } = result;
  const { demand, readahead, sync } = status.fetchedBytes;
  const moved = demand + readahead + sync;
  const isPassed = checks.every((check) => check.isPassed);
  const lines = [
    `a disk of ${formatSize(layout.sizeBytes)} moved while it was used`,
    `  usable after  ${formatDuration(result.usableAfterMs)}`,
    `  first reads   ${result.firstReadsMs.map((ms) => ms.toFixed(1)).join(", ")} ms`,
    `  the clients   ${account.reads} reads of ${
      formatSize(account.readBytes)
    }, ${account.writes} writes of ` +
    `${formatSize(account.writtenBytes)}, ${formatSize(account.zeroedBytes)} zeroed or trimmed`,
    `  moved         ${formatSize(moved)}: ${formatSize(demand)} on demand, ${
      formatSize(readahead)
    } ahead of ` +
    `demand, ${formatSize(sync)} by the sync`,
    `  never moved   ${formatSize(status.holeBytes)} of holes, ${formatSize(status.overwrittenBytes)} ` +
    "overwritten here first",
    `  moved twice   ${formatSize(status.refetchedBytes)}`,
    `  took          ${formatDuration(result.tookMs)}, and ${
      formatDuration(result.tookAllMs)
    } with making the ` +
    "disk and checking it",
    ...checks.map((check) => `  ${check.isPassed ? "✓" : "✗"} ${check.text}`),
    isPassed ? "all is as it must be" : "NOT all is as it must be",
  ];
  return { json: jsonOf(result, isPassed), lines };
}

function jsonOf(result: DemoResult, isPassed: boolean): unknown {
  const { layout, account, status } = result;
  const { fetchedBytes, holeBytes, overwrittenBytes, refetchedBytes, residentBytes, writtenBytes } = status;
  return {
    result: isPassed ? "passed" : "failed",
    sizeBytes: layout.sizeBytes,
    dataBytes: layout.dataBytes,
    files: layout.files.length,
    usableAfterSeconds: result.usableAfterMs / 1000,
    firstReadSeconds: result.firstReadsMs.map((ms) => ms / 1000),
    clients: {
      reads: account.reads,
      readBytes: account.readBytes,
      writes: account.writes,
      writtenBytes: account.writtenBytes,
      zeroedBytes: account.zeroedBytes,
    },
    residentBytes,
    writtenBytes,
    fetchedBytes,
    refetchedBytes,
    holeBytes,
    overwrittenBytes,
    verifiedBytes: status.verified === "same" ? status.verifiedBytes : null,
    moveSeconds: result.tookMs / 1000,
    tookSeconds: result.tookAllMs / 1000,
    checks: result.checks.map(({ name, isPassed, text }) => ({ name, passed: isPassed, text })),
    folder: result.folder ?? null,
  };
}
