import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { EngineStatus } from "../../src/engine/mod.ts";
import { nbdUriOf, statusesOf, statusOf as statusOfView } from "../../src/migration/status.ts";
import { phaseOf, viewOf } from "../../src/migration/view.ts";
import type { DestinationEntry, SourceEntry } from "../../src/role/mod.ts";

const engine: EngineStatus = {
  state: "active",
  pid: 42,
  sizeBytes: 1000,
  blockBytes: 100,
  residentBytes: 500,
  writtenBytes: 100,
  fetchedBytes: { demand: 100, readahead: 100, sync: 200 },
  refetchedBytes: 0,
  holeBytes: 0,
  overwrittenBytes: 50,
  rateBytesPerSecond: 10,
  etaSeconds: 50,
  sync: "running",
  limitBytesPerSecond: null,
  isConnected: true,
  isSourceDetached: false,
  sourceError: null,
  lastError: null,
  clients: 1,
};

const destination: DestinationEntry = {
  id: "abcd1234",
  isReadable: true,
  createdAt: "2026-01-02T00:00:00.000Z",
  state: "attached",
  source: { host: "here", path: "/src", reach: null },
  destination: { host: "here", path: "/dst", reach: null },
  options: {
    handoff: "manual",
    handoffCommand: null,
    verify: false,
    holdCutover: false,
    byTicket: false,
    keepSource: false,
  },
  diskCount: 1,
  network: { portal: { address: "127.0.0.1", port: 0 }, allow: "127.0.0.1", tunnel: null },
  totalBytesPerSecond: null,
  sizeBytes: 1000,
  blockBytes: 100,
  isActivated: true,
  verified: null,
  isReleased: false,
  mayCutOver: true,
  nbdSocket: "/run/x/nbd.sock",
  engine,
  stored: null,
  driverPid: 7,
  driverNote: null,
  problem: null,
  remedy: null,
};

const source: SourceEntry = {
  id: "abcd1234",
  createdAt: "2026-01-02T00:00:01.000Z",
  state: "exported",
  source: { host: "here", path: "/src", reach: null },
  destination: { host: "here", path: "/dst", reach: null },
  sizeBytes: 1000,
  tgtdPid: 5,
  fence: null,
  danger: null,
  problem: null,
};

const statusOf = (entry: DestinationEntry, from: SourceEntry | undefined) =>
  statusOfView(viewOf(entry.id, from === undefined ? [] : [from], [entry]));

const test = suite("status of a migration");

test("phaseOf() follows the journal first, then the engine", () => {
  const phase = (entry: Partial<DestinationEntry>) => phaseOf({ ...destination, ...entry });
  assert.is(phase({ state: "planned" }), "exported");
  assert.is(phase({ state: "attaching" }), "exported");
  assert.is(phase({ isActivated: false }), "attached");
  assert.is(phase({}), "active");
  assert.is(phase({ engine: null }), "active");
  assert.is(phase({ engine: { ...engine, state: "synced" } }), "synced");
  assert.is(phase({ isReleased: true }), "released");
  assert.is(phase({ state: "finishing" }), "released");
});

test("statusesOf() gives one status for each migration, the oldest first, exports without a destination too", () => {
  const older = { ...source, id: "zzzz0000", createdAt: "2025-01-01T00:00:00.000Z", destination: null };
  const [first, second, ...others] = statusesOf([source, older], [destination]);
  assert.equal(others, []);
  assert.equal([first!.id, first!.phase, first!.disks], ["zzzz0000", "exported", []]);
  assert.equal([second!.id, second!.phase, second!.disks.length], ["abcd1234", "active", 1]);
});

test("statusOf() takes figures from the engine, else from the map on disk", () => {
  const [running] = statusOf(destination, source).disks;
  assert.equal([running!.residentBytes, running!.enginePid], [500, 42]);
  assert.is(running!.nbdUri, "nbd+unix:///?socket=/run/x/nbd.sock");
  const stored = { residentBytes: 300, writtenBytes: 30 };
  const stopped = statusOf({ ...destination, engine: null, stored, problem: "it does not run" }, source);
  assert.equal([stopped.disks[0]!.residentBytes, stopped.disks[0]!.writtenBytes], [300, 30]);
  assert.equal([stopped.disks[0]!.nbdUri, stopped.disks[0]!.enginePid], [null, null]);
  assert.is(stopped.lastError, "it does not run");
});

test("statusOf() says first what matters most", () => {
  const lastError = (entry: Partial<DestinationEntry>, from: SourceEntry | undefined = source) =>
    statusOf({ ...destination, ...entry }, from).lastError;
  assert.is(lastError({}), null);
  assert.is(lastError({ engine: { ...engine, lastError: "no space" } }), "no space");
  assert.is(
    lastError({ engine: { ...engine, lastError: "no space" } }, { ...source, problem: "damaged" }),
    "no space",
  );
  assert.is(lastError({}, { ...source, problem: "damaged" }), "damaged");
  assert.match(lastError({ verified: "different" })!, "difference");
  assert.match(lastError({ state: "aborting" })!, "dlsm abort abcd1234");
  const gone = { ...source, tgtdPid: null };
  assert.is(lastError({}, gone), null, "it is connected");
  assert.match(lastError({ engine: { ...engine, isConnected: false } }, gone)!, "tgtd");
});

test("statusOf() of a journal that cannot be read: what the source and the engine know, why, and what to do", () => {
  const broken: DestinationEntry = {
    ...destination,
    isReadable: false,
    createdAt: "",
    source: { host: "", path: "", reach: null },
    destination: { host: "here", path: "", reach: null },
    problem: "the journal is damaged",
    remedy: "restore it",
  };
  const status = statusOf(broken, source);
  assert.equal([status.source.path, status.destination.path], ["/src", "/dst"]);
  assert.is(status.createdAt, source.createdAt);
  assert.is(status.lastError, "the journal is damaged: restore it");
  assert.is(status.disks[0]!.residentBytes, 500);
  const alone = statusOf(broken, undefined);
  assert.equal([alone.source.path, alone.destination], ["", { host: "here", path: "" }]);
});

test("statusOf() tells a pause, and a wait for the source", () => {
  const paused = statusOf({ ...destination, engine: { ...engine, sync: "paused" } }, source);
  assert.equal([paused.paused, paused.disks[0]!.paused], [true, true]);
  const waiting = statusOf({ ...destination, engine: { ...engine, isConnected: false } }, source);
  assert.is(waiting.waitingForSource, true);
  const through = { ...engine, isConnected: false, isSourceDetached: true };
  assert.is(statusOf({ ...destination, engine: through }, source).waitingForSource, false);
});

test("nbdUriOf() is an address that a client reads back as the path", () => {
  for (const path of ["/run/a", "/a b/ü", "/a?b#c&d=e", "/100%/x"]) {
    const url = new URL(nbdUriOf(path));
    assert.is(url.searchParams.get("socket"), path);
  }
});

test.run();
