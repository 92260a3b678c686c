import { suite } from "uvu";
import * as assert from "uvu/assert";
import { summaryOf } from "../../src/cli/summary.ts";
import type { MigrationStatus } from "../../src/report/mod.ts";

const MiB = 1024 * 1024;
const status: MigrationStatus = {
  id: "abcd1234",
  phase: "done",
  handoff: "now",
  createdAt: "2026-01-02T00:00:00.000Z",
  source: { host: "a", path: "/src" },
  destination: { host: "a", path: "/dst" },
  disks: [{
    source: "/src",
    destination: "/dst",
    sizeBytes: 64 * MiB,
    blockBytes: 4096,
    residentBytes: 64 * MiB,
    writtenBytes: 3 * MiB,
    fetchedBytes: { demand: MiB, readahead: 2 * MiB, sync: 10 * MiB },
    refetchedBytes: 0,
    holeBytes: 50 * MiB,
    overwrittenBytes: MiB,
    verified: "same",
    verifiedBytes: 13 * MiB,
    nbdUri: null,
    device: null,
    enginePid: null,
    rateBytesPerSecond: 0,
    etaSeconds: 0,
    paused: false,
    waitingForSource: false,
    lastError: null,
  }],
  paused: false,
  waitingForSource: false,
  lastError: null,
};
const nowMs = Date.parse("2026-01-02T00:01:30.000Z");

const test = suite("summary");

test("summaryOf() says what moved, by what, and what never had to", () => {
  assert.equal(summaryOf(status, nowMs).lines, [
    "abcd1234 done: /src is now /dst",
    "  moved        13 MiB of 64 MiB: 1 MiB on demand, 2 MiB ahead of demand, 10 MiB by the sync",
    "  never moved  50 MiB of holes, 1 MiB overwritten here first",
    "  moved twice  0 B",
    "  verified     13 MiB: both sides have the same hashes",
    "  took         1 min 30 s",
  ]);
});

test("summaryOf() is the status with what was verified and how long it took, for programs", () => {
  assert.equal(summaryOf(status, nowMs).json, { ...status, verifiedBytes: 13 * MiB, tookSeconds: 90 });
  const [disk] = status.disks;
  const two = { ...status, disks: [disk!, disk!] };
  assert.equal((summaryOf(two, nowMs).json as { verifiedBytes: unknown }).verifiedBytes, 26 * MiB);
  const half = { ...status, disks: [disk!, { ...disk!, verified: null }] };
  const { json, lines } = summaryOf(half, nowMs);
  assert.is((json as { verifiedBytes: unknown }).verifiedBytes, null);
  assert.not.ok(lines.some((line) => line.includes("verified")));
});

test("summaryOf() does not say how long it took when the clock is behind its beginning", () => {
  const { json, lines } = summaryOf(status, Date.parse(status.createdAt) - 1);
  assert.equal((json as { tookSeconds: unknown }).tookSeconds, null);
  assert.not.ok(lines.some((line) => line.includes("took")));
});

test.run();
