import { suite } from "uvu";
import * as assert from "uvu/assert";
import { nbdUriOf, statusesOf, statusOf as statusOfView } from "../../src/migration/status.ts";
import { phaseOf, viewOf } from "../../src/migration/view.ts";
import type { DestinationEntry, SourceEntry } from "../../src/role/mod.ts";
import { destination, engine, source } from "./entries.ts";

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

test("statusOf() of what an older version remembers, without a verification: there was none", () => {
  const { verified: _, verifiedBytes: __, ...older } = destination;
  const [disk] = statusOf(older as DestinationEntry, source).disks;
  assert.equal([disk!.verified, disk!.verifiedBytes], [null, 0]);
  const [checked] = statusOf({ ...destination, verified: "same", verifiedBytes: 400 }, source).disks;
  assert.equal([checked!.verified, checked!.verifiedBytes], ["same", 400]);
});

test("statusOf() tells that tgtd is gone only while something is still to come from it", () => {
  const lastError = (change: Partial<typeof engine>) =>
    statusOf({ ...destination, engine: { ...engine, isConnected: false, ...change } }, {
      ...source,
      tgtdPid: null,
    }).lastError;
  assert.is(lastError({}), "tgtd, which exports the source, does not run");
  // So it is for a moment at each release.
  assert.is(lastError({ state: "synced", isSourceDetached: true }), null);
  assert.is(lastError({ isConnected: true }), null);
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

test("statusOf() of an export says what to do with one whose destination has no record of it", () => {
  const lastError = (entry: Partial<SourceEntry>, destinationProblem: string | null = null) =>
    statusOfView({ ...viewOf(source.id, [{ ...source, ...entry }], []), destinationProblem }).lastError;
  assert.match(lastError({})!, "here, knows nothing of it: dlsm abort abcd1234");
  assert.match(lastError({ tgtdPid: null })!, "dlsm abort abcd1234");
  assert.is(lastError({}, "node2 is away"), "node2 is away", "it may know of it");
  assert.is(lastError({ destination: null }), null, "exported by hand");
  assert.match(lastError({ destination: null, tgtdPid: null })!, "tgtd");
  assert.match(lastError({ state: "releasing" })!, "dlsm abort abcd1234");
  assert.match(lastError({ state: "releasing", destination: null })!, "dlsm release abcd1234");
});

test("statusOf() tells of a destination whose export was taken away, if its host was asked", () => {
  const lastError = (entry: Partial<DestinationEntry>, isSourceKnown = true) =>
    statusOfView({ ...viewOf("abcd1234", [], [{ ...destination, ...entry }]), isSourceKnown }).lastError;
  assert.match(lastError({ isActivated: false })!, "nothing was handed over: dlsm abort abcd1234");
  assert.match(lastError({})!, "not all of it is here: dlsm resume abcd1234");
  assert.is(lastError({}, false), null, "nobody asked there");
  assert.is(lastError({ isReleased: true }), null);
  assert.is(lastError({ options: { ...destination.options, byTicket: true } }), null);
  assert.is(lastError({ engine: { ...engine, state: "synced" } }), null);
  assert.is(
    lastError({ engine: null, stored: { residentBytes: 1000, writtenBytes: 0 } }),
    null,
    "all is here",
  );
  assert.match(lastError({ engine: null, stored: { residentBytes: 900, writtenBytes: 0 } })!, "was released");
});

test("statusOf() of a journal that cannot be read: what the source and the engine know, why, and what to do", () => {
  const broken: DestinationEntry = {
    ...destination,
    isReadable: false,
    createdAt: "",
    source: { host: "", path: "", reach: null, hostId: null },
    destination: { host: "here", path: "", reach: null, hostId: null },
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

test("statusOf() of several disks: the least phase, every disk, the first error", () => {
  const first = { ...destination, id: "abcd1234-1" };
  const second = {
    ...destination,
    id: "abcd1234-2",
    createdAt: "2026-01-03T00:00:00.000Z",
    engine: { ...engine, state: "synced", lastError: "late" } as const,
  };
  const status = statusOfView(viewOf("abcd1234", [], [second, first]));
  assert.equal([status.id, status.phase, status.createdAt], ["abcd1234", "active", first.createdAt]);
  assert.equal(status.disks.map(({ lastError }) => lastError), [null, "late"]);
  assert.is(status.lastError, "late");
  assert.equal(statusesOf([{ ...source, id: "abcd1234-2" }], [first, second]).length, 1);
});

test("statusOf() says what the driver cannot do, and that a host does not answer", () => {
  const view = { ...viewOf("abcd1234", [], [destination]), sourceProblem: "node1 does not answer" };
  assert.is(statusOfView(view).lastError, "node1 does not answer");
  const noted = { ...destination, driverNote: "no ssh to node1" };
  assert.is(
    statusOfView({ ...view, disks: [{ ...view.disks[0]!, destination: noted }] }).lastError,
    "no ssh to node1",
  );
  const lost = { ...destination, engine: { ...engine, isConnected: false, sourceError: "no tunnel" } };
  const lostView = viewOf("abcd1234", [], [lost]);
  assert.is(statusOfView(lostView).lastError, "no tunnel");
  assert.is(statusOfView({ ...lostView, sourceProblem: "it is away" }).lastError, "it is away");
  const released = viewOf("abcd1234", [], [{ ...lost, isReleased: true }]);
  assert.is(statusOfView(released).lastError, null, "it is not needed any more");
  const alone = { ...viewOf("abcd1234", [source], []), destinationProblem: "node2 does not answer" };
  assert.equal([statusOfView(alone).phase, statusOfView(alone).lastError], [
    "exported",
    "node2 does not answer",
  ]);
});

test("statusOf() puts a source that was written after the hand-off before everything but what stops the engine", () => {
  const danger = { ...source, danger: "it was written" };
  assert.is(statusOf(destination, danger).lastError, "it was written");
  assert.is(statusOf({ ...destination, isReleased: true }, danger).lastError, null);
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
