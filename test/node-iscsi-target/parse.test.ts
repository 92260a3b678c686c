import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { TgtError } from "../../src/node-iscsi-target/errors.ts";
import * as parse from "../../src/node-iscsi-target/parse.ts";
import * as recorded from "./recorded.ts";

const test = suite("parse");

test("system: its state and that of its drivers", () => {
  const system = parse.parseSystem(recorded.system);
  assert.is(system.state, "ready");
  assert.equal([...system.drivers], [["iscsi", "ready"], ["iser", "error"]]);
});

test("portals: IPv4 and IPv6", () => {
  assert.equal(parse.parsePortals(recorded.portals), [
    { address: "fe80::fc:ff:fe00:1", port: 45083 },
    { address: "::1", port: 46599 },
    { address: "127.0.0.1", port: 13321 },
  ]);
  assert.equal(parse.parsePortals(""), []);
});

test("portals: a line that is not understood is refused, because it might be a wildcard", () => {
  for (const line of ["Portal: iser 0.0.0.0:3260,1", "Gate: 127.0.0.1:1,1", "Portal: 127.0.0.1,1"]) {
    assert.throws(() => parse.parsePortals(`${recorded.portals}${line}\n`), isBadReply);
  }
});

test("isWildcard: every spelling of all addresses, and none of one", () => {
  const wildcards = parse.parsePortals(recorded.wildcardPortals);
  assert.equal(wildcards.map(parse.isWildcard), [true, true]);
  assert.is(parse.isWildcard({ address: "0:0:0:0:0:0:0:0", port: 1 }), true);
  assert.is(parse.isWildcard({ address: "*", port: 1 }), true);
  assert.equal(parse.parsePortals(recorded.portals).map(parse.isWildcard), [false, false, false]);
});

test("accounts", () => {
  assert.equal(parse.parseAccounts(recorded.accounts), ["u2", "v1", "u1"]);
  assert.equal(parse.parseAccounts("Account list:\n"), []);
  assert.equal(parse.parseAccounts(""), []);
});

test("connections", () => {
  assert.equal(parse.parseConnections(recorded.connections), [
    { sid: 1, cid: 0, initiator: "iqn.2024-01.test:probe", address: "::1" },
    { sid: 12, cid: 3, initiator: "iqn.2024-01.test:other", address: "192.0.2.7" },
  ]);
  assert.equal(parse.parseConnections(""), []);
});

test("targets: LUNs, accounts, addresses", () => {
  const [first, second, ...others] = parse.parseTargets(recorded.targets);
  assert.is(others.length, 0);
  assert.is(first!.tid, 1);
  assert.is(first!.name, "iqn.2024-01.x:a");
  assert.is(first!.state, "ready");
  assert.is(first!.nopIntervalSeconds, 5);
  assert.is(first!.nopCount, 3);
  assert.equal(first!.luns.map((lun) => lun.type), ["controller", "disk"]);
  assert.equal(first!.luns[1], {
    lun: 1,
    type: "disk",
    scsiId: "abc-1",
    serial: "abc-1",
    blockBytes: 512,
    online: true,
    readOnly: true,
    backingType: "rdwr",
    backingPath: "disks/1",
    backingFlags: ["direct"],
  });
  assert.equal(first!.accounts, [{ user: "u1", direction: "incoming" }, {
    user: "v1",
    direction: "outgoing",
  }]);
  assert.equal(first!.allowed, ["::1"]);
  assert.is(second!.luns[1]!.blockBytes, 4096);
  assert.equal(second!.luns[1]!.backingFlags, []);
  assert.equal(parse.parseTargets(""), []);
});

test("targets: what an initiator calls itself does not make a LUN read-only", () => {
  const written = recorded.targets.replaceAll("Readonly: Yes", "Readonly: No")
    .replace("test:probe", "x\n            Readonly: Yes");
  assert.equal(parse.parseTargets(written).map((target) => target.luns[1]!.readOnly), [false, false]);
});

test("statistics: per LUN and session", () => {
  const [controller, disk] = parse.parseStatistics(recorded.statistics);
  assert.is(controller!.lun, 0);
  assert.equal(disk, {
    tid: 1,
    lun: 1,
    sid: 1,
    read: { submittedBytes: 16384, submittedCommands: 3, doneBytes: 12288, doneCommands: 2 },
    write: { submittedBytes: 512, submittedCommands: 1, doneBytes: 512, doneCommands: 1 },
    errors: 2,
  });
  assert.equal(parse.parseStatistics(recorded.statistics.split("\n")[0]!), []);
  assert.throws(() => parse.parseStatistics(""), isBadReply);
  assert.throws(() => parse.parseStatistics(`${recorded.statistics} 1 2 3\n`), isBadReply);
});

/** Recorded text with pieces cut out, doubled or replaced. */
const damaged = fc.tuple(
  fc.constantFrom(...Object.values(recorded)),
  fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(60), fc.string({ maxLength: 20 }))),
).map(([text, cuts]) =>
  cuts.reduce((current, [where, length, insert]) => {
    const at = Math.floor(where * current.length);
    return current.slice(0, at) + insert + current.slice(at + length);
  }, text)
);

for (const [name, parser] of Object.entries(parse).filter(([name]) => name.startsWith("parse"))) {
  test(`${name}: anything but a TgtError is never thrown`, () => {
    const check = (text: string) => {
      try {
        (parser as (text: string) => unknown)(text);
      } catch (error) {
        if (!(error instanceof TgtError)) throw error;
      }
    };
    fc.assert(fc.property(fc.oneof(damaged, fc.string({ maxLength: 300 })), check), { numRuns: 500 });
  });
}

function isBadReply(error: unknown): boolean {
  return error instanceof TgtError && error.reason === "badReply";
}

test.run();
