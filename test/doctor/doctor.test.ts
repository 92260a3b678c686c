/** What is told of several hosts together; the hosts are scripted. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { clockFinding, skewOf } from "../../src/doctor/between.ts";
import { orphaned } from "../../src/doctor/exports.ts";
import { examine, findingLine, type HostFinding } from "../../src/doctor/mod.ts";
import { PreconditionError, UnreachableError } from "../../src/lib/errors.ts";
import type { Finding, Host, HostFacts } from "../../src/role/mod.ts";

const test = suite("doctor");

const good: Finding = {
  check: "tgt",
  level: "ok",
  subject: "tgtd",
  message: "/usr/sbin/tgtd",
  remedy: null,
  cleanable: false,
};
const left: Finding = {
  check: "tgtd",
  level: "stray",
  subject: "process 7",
  message: "tgtd (pid 7) runs",
  remedy: "dlsm doctor --clean",
  cleanable: true,
};

type Answers = Readonly<Record<string, unknown>>;

/** Answers what it is asked from a table; what is an error is thrown. Requests are written down. */
function scripted(name: string, given: Answers = {}, isHere = false): { host: Host; asked: string[] } {
  const asked: string[] = [];
  const answers: Answers = {
    "host.survey": [good],
    "host.clean": [],
    "host.clock": { nowMs: Date.now() },
    "host.reachSsh": { problem: null, hostname: "other", hostId: "other" },
    "host.openPort": { port: 4000, problem: null },
    "host.probe": { problem: null },
    "source.list": [],
    "destination.list": [],
    ...given,
  };
  const facts: HostFacts = {
    hostname: name,
    hostId: name,
    version: "1",
    uid: 0,
    user: "root",
    bootId: name,
    networkId: "1",
    stateFolder: "/s",
    runFolder: "/r",
    ssh: isHere ? null : { clientAddress: "10.0.0.9", serverAddress: `10.0.0.${name.length}` },
    runtime: "node",
  };
  const answer = (request: string) => {
    const given = answers[request];
    return given instanceof Error ? Promise.reject(given) : Promise.resolve(given);
  };
  const host = {
    reach: isHere ? null : `root@${name}`,
    ask: (request: string, params: unknown) => {
      asked.push(`${request} ${JSON.stringify(params)}`);
      return answer(request);
    },
    facts: () => "facts" in answers ? answer("facts") : Promise.resolve(facts),
    close: () => Promise.resolve(),
  };
  return { host: host as unknown as Host, asked };
}

const named = (name: string, given: Answers = {}) => ({ name, host: scripted(name, given).host });
const of = (findings: readonly HostFinding[], host: string, check: string) =>
  findings.filter((each) => each.host === host && each.check === check);

test("this machine alone is asked for its own survey, and nothing is cleaned", async () => {
  const { host, asked } = scripted("here", {}, true);
  assert.equal(await examine([{ name: "here", host }], false), [{ host: "here", ...good, cleaned: null }]);
  assert.equal(asked.filter((each) => !each.includes(".list")), ["host.survey {}"]);
});

test("what was removed is told beside what is left, what could not be removed with its reason", async () => {
  const outcome = { finding: left, isGone: true, outcome: "ended it" };
  const other = { ...left, subject: "process 8" };
  const host = named("node", {
    "host.clean": [outcome, { finding: other, isGone: false, outcome: "it does not end" }],
    "host.survey": [good, other],
  });
  const strays = (await examine([host], true)).filter(({ level }) => level === "stray");
  assert.equal(strays.map(({ subject, cleaned }) => [subject, cleaned]), [["process 8", null], [
    "process 7",
    "ended it",
  ]]);
  assert.match(strays[0]!.message, /could not be removed: it does not end/);
});

test("a host out of reach is a finding, the others are examined, in the order they were named", async () => {
  const gone = new UnreachableError("no route to b", {
    host: "b",
    wasReached: false,
    hint: "mend the route",
  });
  const busy = new PreconditionError("another dlsm is busy");
  const found = await examine(
    [named("a"), named("bb", { facts: gone }), named("ccc", { "host.survey": busy })],
    false,
  );
  assert.equal([...new Set(found.map(({ host }) => host))], ["a", "bb", "ccc"]);
  const [reach] = found.filter(({ host }) => host === "bb");
  assert.equal([reach!.check, reach!.level, reach!.message, reach!.remedy], [
    ...["reach", "missing", "no route to b", "mend the route"],
  ]);
  assert.is(of(found, "ccc", "survey")[0]!.level, "missing");
  assert.is(of(found, "a", "tgt").length, 1);
  assert.is(of(found, "a", "ssh-between").length, 2, "to ccc, and back to this machine");
});

test("an error that is a bug is none of the host's findings", async () => {
  try {
    await examine([named("a", { "host.survey": new TypeError("oops") })], false);
    assert.unreachable();
  } catch (error) {
    assert.instance(error, TypeError);
  }
});

test("each pair is tried both ways: ssh, and a port that is opened for it", async () => {
  const a = scripted("a", { "host.reachSsh": { problem: "permission denied" } });
  const b = scripted("bb", { "host.probe": { problem: "no answer" } });
  const found = await examine([{ name: "a", host: a.host }, { name: "bb", host: b.host }], false);
  assert.ok(a.asked.includes('host.reachSsh {"destination":"root@bb"}'));
  assert.ok(a.asked.some((each) => /^host\.reachSsh .*@10\.0\.0\.9"/.test(each)), "and this machine");
  assert.ok(a.asked.some((each) => each.startsWith('host.probe {"address":"10.0.0.2","port":4000,')));
  assert.ok(b.asked.some((each) => each.startsWith('host.openPort {"address":"10.0.0.2",')));
  assert.equal(of(found, "a", "ssh-between").map(({ level }) => level), ["note", "note"]);
  assert.match(of(found, "a", "ssh-between")[0]!.message, /permission denied/);
  assert.equal(of(found, "a", "portal").map(({ level }) => level), ["ok"]);
  const [blocked] = of(found, "bb", "portal");
  assert.equal([blocked!.level, blocked!.subject], ["note", "a"]);
  assert.match(blocked!.message, /no answer/);
});

test("clocks: half of the round trip is taken off, more than two seconds are told with their sign", () => {
  assert.is(skewOf(1_000, 400, 1_200), 0);
  assert.is(skewOf(1_000, 400, 6_200), 5_000);
  assert.equal([2_000, -2_000, 0].map((skew) => clockFinding("a", skew).level), ["ok", "ok", "ok"]);
  const ahead = clockFinding("a", 2_600);
  assert.is(ahead.level, "note");
  assert.match(ahead.message, /2\.6 s ahead of/);
  assert.match(clockFinding("a", -3_600_000).message, /3600\.0 s behind/);
});

test("an export is surely an orphan only if the very host of its destination does not know it", () => {
  const entry = {
    id: "abcd2345",
    state: "exported",
    problem: null,
    destination: { host: "twin", path: "/d", reach: null, hostId: "2" },
  } as const;
  const hostname = "twin";
  const itself = { hostname: "renamed", hostId: "2", ids: ["other234"] };
  const other = { hostname, hostId: "1", ids: [] };
  assert.is(orphaned(entry, [itself]), "surely");
  assert.is(orphaned(entry, [itself, { hostname, hostId: "1", ids: [entry.id] }]), "surely");
  assert.is(orphaned(entry, [other]), "perhaps");
  assert.is(orphaned(entry, [{ hostname, hostId: null, ids: [] }]), "perhaps");
  const unnamed = { ...entry.destination, hostId: null };
  assert.is(orphaned({ ...entry, destination: unnamed }, [other]), "perhaps");
  assert.is(orphaned({ ...entry, destination: unnamed }, [{ ...itself, hostId: null }]), undefined);
  for (
    const known of [
      [],
      [{ hostname: "node3", hostId: "1", ids: [] }],
      [other, { ...itself, ids: [entry.id] }],
      [other, { ...itself, ids: null }],
      [{ ...other, ids: null }],
      [other, { ...other, ids: [entry.id] }],
    ]
  ) assert.is(orphaned(entry, known), undefined, JSON.stringify(known));
  assert.is(orphaned({ ...entry, destination: null }, [itself, other]), undefined, "made by hand");
  assert.is(orphaned({ ...entry, state: "exporting" }, [itself]), undefined);
  assert.is(orphaned({ ...entry, problem: "damaged" }, [itself]), undefined);
});

test("an orphan of several disks is released by its migration's id, after the hand-off by force", async () => {
  const place = (path: string, hostId: string) => ({ host: "twin", path, reach: null, hostId });
  const entry = (id: string, fence: unknown) => ({
    id,
    state: "exported",
    problem: null,
    source: place("/s", "a"),
    destination: place("/d", "bb"),
    fence,
  });
  const a = named("a", {
    "source.list": [entry("abcd2345-1", { kinds: ["mode"] }), entry("efgh2345", null)],
  });
  const twin = await examine([a, named("ccc")], false);
  assert.equal(of(twin, "a", "export"), [], "another host of that name was asked");
  const found = of(await examine([a, named("bb")], false), "a", "export");
  assert.equal(found.map(({ subject, remedy }) => [subject, remedy]), [
    ["abcd2345-1", "dlsm release abcd2345 --force on this host"],
    ["efgh2345", "dlsm release efgh2345 on this host"],
  ]);
});

test("one line a finding, with what to do or what was done at its end", () => {
  const line = (finding: Finding, cleaned: string | null = null) =>
    findingLine({ host: "a", ...finding, cleaned });
  assert.is(line(good), "  ok       tgt: /usr/sbin/tgtd");
  assert.is(line(left), "  stray    tgtd: tgtd (pid 7) runs; to do: dlsm doctor --clean");
  assert.is(line(left, "ended it"), "  cleaned  tgtd: tgtd (pid 7) runs; ended it");
});

test.run();
