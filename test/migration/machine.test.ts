import { suite } from "uvu";
import * as assert from "uvu/assert";
import { DifferenceError, DlsmError } from "../../src/lib/errors.ts";
import { nextSetUpStep, nextSteps, shareOf } from "../../src/migration/machine.ts";
import { type DiskView, viewOf } from "../../src/migration/view.ts";
import type { DestinationEntry, SourceEntry } from "../../src/role/mod.ts";
import { destination, engine, source } from "./entries.ts";

const id = destination.id;
const planned: DestinationEntry = { ...destination, state: "planned", isActivated: false, engine: null };
const attached: DestinationEntry = {
  ...destination,
  isActivated: false,
  engine: { ...engine, state: "attached" },
  options: { ...destination.options, handoff: "now" },
};
const synced: DestinationEntry = { ...destination, engine: { ...engine, state: "synced" } };

function view(to: DestinationEntry | undefined, from: SourceEntry | undefined = source) {
  return viewOf(id, from === undefined ? [] : [from], to === undefined ? [] : [to]);
}

/** The steps as "name" or "name of disk 2". */
function steps(of: { readonly disks: readonly DiskView[] }, lost: readonly string[] = []): string[] {
  const whole = { id, sourceProblem: null, destinationProblem: null, isSourceKnown: true, ...of };
  return nextSteps(whole, { lost: new Set(lost) }).map(({ name, id: disk }) =>
    disk.includes("-") ? `${name} ${disk.split("-")[1]}` : name
  );
}

function two(first: DestinationEntry, second: DestinationEntry) {
  const both = { diskCount: 2 };
  return viewOf(id, [{ ...source, id: `${id}-1` }, { ...source, id: `${id}-2` }], [
    { ...first, ...both, id: `${id}-1` },
    { ...second, ...both, id: `${id}-2` },
  ]);
}

function refuses(work: () => unknown, message: RegExp, hint: RegExp): void {
  assert.throws(
    work,
    (error: Error) =>
      error instanceof DlsmError && message.test(error.message) && hint.test(error.hint ?? ""),
  );
}

const test = suite("migration: state machine");

test("a disk that goes back is seeded before it is attached, anew if that was cut short", () => {
  const of = { of: "old12345", isWhole: false, seededBytes: 0, isSettled: false };
  const back = { ...planned, failback: of };
  assert.equal(nextSetUpStep(viewOf(id, [], [back])), { name: "export", id });
  assert.equal(nextSetUpStep(view(back)), { name: "seed", id });
  assert.equal(nextSetUpStep(view({ ...back, failback: { ...of, seededBytes: 999 } })), { name: "seed", id });
  const seeded = { ...back, failback: { ...of, seededBytes: back.sizeBytes } };
  assert.equal(nextSetUpStep(view(seeded)), { name: "attach", id });
  assert.equal(nextSetUpStep(view({ ...seeded, state: "attaching" })), { name: "seed", id });
});

test("the old migration goes when every disk has gone back, before anything of the new one", () => {
  const failback = { of: "old12345", isWhole: true, seededBytes: 1000, isSettled: false };
  const back = { ...synced, failback };
  assert.equal(steps(view(back)), ["settle"]);
  assert.equal(steps(view({ ...back, engine: null })), ["startEngine"]);
  assert.equal(steps(view({ ...back, failback: { ...failback, isSettled: true } })), ["logOut"]);
  assert.not.ok(steps(two({ ...attached, failback }, back)).some((name) => name.startsWith("settle")));
  assert.equal(steps(two({ ...destination, failback }, back)), ["settle 1", "settle 2"]);
});

test("nobody drives a migration that goes back", () => {
  for (const state of ["frozen", "thawing"] as const) {
    const frozen = { ...destination, state, goesBackAs: "back2345", engine: null };
    refuses(() => steps(view(frozen)), /going back as back2345/, /dlsm failback .* dlsm resume/);
  }
});

test("an engine that does not answer is waited for: it is no reason to start another one", () => {
  const hung = { ...destination, engine: null, isEngineHung: true };
  assert.equal(steps(view(hung)), []);
  assert.equal(steps(view({ ...hung, isReleased: true })), []);
  assert.equal(steps(two(hung, { ...destination, engine: null })), ["startEngine 2"]);
});

test("setting up: export, attach, and no more", () => {
  assert.equal(nextSetUpStep(viewOf(id, [], [planned])), { name: "export", id });
  assert.equal(nextSetUpStep(view(planned, { ...source, state: "exporting" })), { name: "export", id });
  assert.equal(nextSetUpStep(view(planned, { ...source, tgtdPid: null })), { name: "export", id });
  assert.equal(nextSetUpStep(view(planned)), { name: "attach", id });
  assert.equal(nextSetUpStep(view({ ...planned, state: "attaching" })), { name: "attach", id });
  assert.is(nextSetUpStep(view(attached)), undefined);
  const byTicket = { ...planned, options: { ...planned.options, byTicket: true } };
  refuses(() => nextSetUpStep(view(byTicket)), /cut short/, /dlsm attach/);
  refuses(() => nextSetUpStep(view(undefined)), /only an export/, /--host/);
});

test("setting several disks up: one after the other; one that is missing is not set up", () => {
  assert.equal(nextSetUpStep(two(attached, planned)), { name: "attach", id: `${id}-2` });
  const missing = view({ ...planned, diskCount: 2 });
  const active = { ...view({ ...destination, diskCount: 2, engine: null }) };
  assert.equal(steps(active), ["startEngine"], "one that was handed over goes on without the others");
  refuses(() => nextSetUpStep(missing), /of the 2 disks .* only 1/, /dlsm abort/);
});

test("the driver does not set up: that could be taken for done", () => {
  refuses(() => steps(view(planned)), /not set up completely/, /dlsm resume/);
  refuses(() => steps(view({ ...attached, state: "aborting" })), /not taken away completely/, /dlsm abort/);
  refuses(() => steps(view({ ...destination, isReadable: false, problem: "damaged" })), /damaged/, /^$/);
});

test("the hand-off: now, by command, by hand; once begun it goes through", () => {
  assert.equal(steps(view(attached)), ["handOff"]);
  const by = (handoff: "manual" | "command") => ({ ...attached, options: { ...attached.options, handoff } });
  assert.equal(steps(view(by("manual"))), []);
  assert.equal(steps(view(by("command"))), ["command"]);
  assert.equal(steps(two(by("manual"), by("manual"))), []);
  assert.equal(steps(two(by("manual"), destination)), ["handOff"], "a first write to one disk");
  assert.equal(steps(view({ ...attached, engine: null })), ["startEngine"], "not before the engine is there");
  assert.equal(
    steps(view({ ...by("command"), isHandoffDecided: true })),
    ["handOff"],
    "the command is not run again",
  );
  const killed = two({ ...destination, engine: null }, by("manual"));
  assert.equal(steps(killed), ["startEngine 1", "handOff"], "what waits keeps nobody else waiting");
});

test("a disk that was handed over by a first write is fenced afterwards", () => {
  const open = { ...source, fence: null };
  assert.equal(steps(view(destination, open)), ["fence"]);
  assert.equal(steps(view(destination, { ...open, state: "releasing" })), []);
  assert.equal(
    steps(view({ ...destination, options: { ...destination.options, byTicket: true } }, open)),
    [],
  );
  assert.equal(steps(view(synced, open)), ["logOut"]);
});

test("an active disk: what was killed is started again, tgtd only after a while", () => {
  assert.equal(steps(view(destination)), []);
  assert.equal(steps(view({ ...destination, engine: null })), ["startEngine"]);
  const gone = view(destination, { ...source, tgtdPid: null });
  assert.equal(steps(gone), []);
  assert.equal(steps(gone, [id]), ["startExport"]);
  assert.equal(steps(view(destination), [id]), [], "tgtd runs: it is the network");
  const stopped = { ...destination, engine: { ...engine, sync: "stopped", lastError: "no space" } as const };
  refuses(() => steps(view(stopped)), /no space/, /dlsm resume/);
});

test("the end: verify, log out, release, note it, finish", () => {
  const options = { ...destination.options, verify: true };
  assert.equal(steps(view({ ...synced, options })), ["verify"]);
  assert.equal(steps(view({ ...synced, options, verified: "same" })), ["logOut"]);
  const different = () => steps(view({ ...synced, verified: "different" }));
  refuses(different, /difference/, /dlsm verify/);
  assert.throws(different, (error: unknown) => error instanceof DifferenceError);
  const out = { ...synced, engine: { ...engine, state: "synced", isSourceDetached: true } as const };
  assert.equal(steps(view(out)), ["release"]);
  assert.equal(steps(viewOf(id, [], [out])), ["noteReleased"]);
  const unknown = { ...viewOf(id, [], [out]), sourceProblem: "it does not answer" };
  assert.equal(steps(unknown), ["release"], "what is not known is not taken for released");
  assert.equal(steps(viewOf(id, [], [{ ...out, isReleased: true }])), ["finish"]);
  assert.equal(steps(view({ ...out, options: { ...out.options, byTicket: true } })), ["noteReleased"]);
});

test("a source that is kept is not released before the cut-over is asked for", () => {
  const options = { ...synced.options, keepSource: true };
  assert.equal(steps(view({ ...synced, options, mayCutOver: false })), []);
  assert.equal(steps(view({ ...synced, options, mayCutOver: true })), ["logOut"]);
});

test("several disks end together, the first last", () => {
  const released = { ...synced, isReleased: true };
  assert.equal(steps(two(released, destination)), []);
  assert.equal(steps(two(released, { ...destination, engine: null })), ["startEngine 2"]);
  assert.equal(steps(two(released, released)), ["finish 2", "finish 1"]);
  const left = viewOf(id, [], [{ ...released, diskCount: 2, id: `${id}-1` }]);
  assert.equal(steps(left), ["finish 1"], "the other one is done");
});

test("the limit is shared by the disks that are not synced, and never exceeded", () => {
  const limited = { ...destination, totalBytesPerSecond: 1000 };
  const at = (limitBytesPerSecond: number | null) => ({
    ...limited,
    engine: { ...engine, limitBytesPerSecond },
  });
  assert.is(shareOf([limited, limited]), 500);
  assert.is(shareOf([limited, { ...synced, totalBytesPerSecond: 1000 }]), 1000);
  assert.is(shareOf([destination, destination]), null);
  assert.equal(steps(two(at(500), at(500))), []);
  assert.equal(steps(two(at(null), at(500))), ["share 1"]);
  const rest = two(at(500), { ...synced, totalBytesPerSecond: 1000 });
  assert.equal(steps(rest), ["share 1", "logOut 2"], "a disk that is synced leaves its share to the others");
});

test.run();
