/** What tgtadm prints and tgtd's management socket answers. */
import fc from "fast-check";
import { errorFromTgtadm, TgtError, withLog } from "../../src/node-iscsi-target/errors.ts";
import { decodeReply } from "../../src/node-iscsi-target/management-message.ts";
import * as parse from "../../src/node-iscsi-target/parse.ts";
import type { Portal } from "../../src/node-iscsi-target/types.ts";
import * as assert from "uvu/assert";
import * as recorded from "../node-iscsi-target/recorded.ts";
import { attempt, plain, same } from "./expect.ts";
import { joined, type Mutated, mutated, mutatedText } from "./mutation.ts";
import { type Target, target } from "./target.ts";

const words = [
  "\n",
  "    ",
  "        ",
  "            ",
  ": ",
  "Target 1: iqn.x\n",
  "LUN: 1\n",
  "Size: 1 MB, Block size: 512\n",
  "Session: 1\n",
  "    Connection: 0\n",
  "99999999999999999999",
  "-1",
  "\u001b[2J",
  "Portal: 0.0.0.0:3260,1\n",
  " (outgoing)",
  "__proto__: x\n",
];

/** A parser of one of the recordings, damaged. */
function shows<T>(
  name: string,
  recording: string,
  parser: (text: string) => T,
  check: (value: T, text: string) => void,
): Target {
  const expected = plain(parser(recording));
  return target({
    name: `tgt-${name}`,
    inputs: mutatedText(fc.constant(recording), (text) => text, { words }),
    runs: 1200,
    atLeast: { accepted: 0.05, refused: 0 },
    check({ text, isDamaged }) {
      const { value, error } = attempt([TgtError], () => parser(text));
      if (error !== undefined) {
        assert.is((error as TgtError).reason, "badReply");
        return "refused";
      }
      if (!isDamaged) same(value, expected, "what was recorded");
      check(value as T, text);
      return "accepted";
    },
  });
}

const isCount = (value: number) => Number.isSafeInteger(value) && value >= 0;

const shown: readonly Target[] = [
  shows("system", recorded.system, parse.parseSystem, ({ state }) => assert.ok(state !== "")),
  shows("portals", recorded.portals, parse.parsePortals, (portals, text) => {
    // A line that is not understood may be a portal that everybody can reach: none is left out.
    assert.is(portals.length, text.split("\n").filter((line) => line.trim() !== "").length);
    for (const portal of portals) checkPortal(portal);
  }),
  shows("accounts", recorded.accounts, parse.parseAccounts, (accounts) => {
    for (const account of accounts) assert.is(account, account.trim());
  }),
  shows("connections", recorded.connections, parse.parseConnections, (connections) => {
    for (const { sid, cid } of connections) assert.ok(isCount(sid) && isCount(cid));
  }),
  shows("targets", recorded.targets, parse.parseTargets, (targets) => {
    for (const { tid, nopCount, nopIntervalSeconds, luns } of targets) {
      assert.ok(isCount(tid) && isCount(nopCount) && isCount(nopIntervalSeconds));
      for (const lun of luns) {
        assert.ok(isCount(lun.lun) && isCount(lun.blockBytes));
        assert.ok(typeof lun.readOnly === "boolean" && typeof lun.backingPath === "string");
      }
    }
  }),
  shows("statistics", recorded.statistics, parse.parseStatistics, (rows) => {
    for (const { tid, read, write, errors } of rows) {
      assert.ok([tid, errors, ...Object.values(read), ...Object.values(write)].every(isCount));
    }
  }),
];

function checkPortal(portal: Portal): void {
  assert.ok(portal.address !== "", "a portal without an address");
  assert.ok(portal.port >= 0 && portal.port <= 99_999 && !/[\s[\]]/.test(portal.address));
  // What has no digit but zeroes listens everywhere.
  if (/^[0.:]*$/.test(portal.address)) assert.ok(parse.isWildcard(portal), portal.address);
}

/** A target's name, its read-only flag and its users must come through whatever they are. */
const written = target<{ name: string; readOnly: boolean; users: string[]; initiator: string }>({
  name: "tgt-target-written",
  inputs: fc.record({
    name: fc.stringMatching(/^iqn\.2024-01\.[a-z0-9.:-]{1,20}$/),
    readOnly: fc.boolean(),
    users: fc.array(fc.stringMatching(/^[A-Za-z0-9._:@-]{1,12}$/), { maxLength: 3 }),
    // An initiator that chose its name; tgtd prints it as it is.
    initiator: fc.constantFrom(
      "iqn.x",
      "a\n        LUN: 9\n            Readonly: Yes",
      "a\n    Account information:\n        evil",
      "a\nTarget 7: iqn.evil",
    ),
  }),
  runs: 500,
  check({ name, readOnly, users, initiator }) {
    const text = [
      `Target 1: ${name}`,
      "    System information:",
      "        State: ready",
      "    I_T nexus information:",
      "        I_T nexus: 1",
      `            Initiator: ${initiator} alias: none`,
      "    LUN information:",
      "        LUN: 1",
      "            Size: 1 MB, Block size: 512",
      `            Readonly: ${readOnly ? "Yes" : "No"}`,
      "    Account information:",
      ...users.map((user) => `        ${user}`),
      "    ACL information:",
      "",
    ].join("\n");
    const { value: targets } = attempt([TgtError], () => parse.parseTargets(text));
    if (targets === undefined) return "refused";
    if (initiator !== "iqn.x") return "refused";
    assert.is(targets[0]!.name, name);
    assert.is(targets[0]!.luns[0]!.readOnly, readOnly);
    same(targets[0]!.accounts.map(({ user }) => user), users, "users");
    return "accepted";
  },
});

interface Reply {
  readonly error: number;
  readonly text: string;
}

const replies = target<Mutated<Reply>>({
  name: "tgt-management-reply",
  inputs: mutated(
    fc.record({
      error: fc.nat(30),
      text: fc.string({ maxLength: 60 }).map((text) => text.replaceAll("\0", "")),
    }),
    ({ error, text }) => {
      const body = new TextEncoder().encode(`${text}\0`);
      const head = new Uint8Array(8);
      new DataView(head.buffer).setUint32(0, error, true);
      new DataView(head.buffer).setUint32(4, 8 + body.length, true);
      return joined(head, body);
    },
  ),
  runs: 2000,
  check({ bytes, value, isDamaged }) {
    const { value: found, error } = attempt([TgtError], () => decodeReply(bytes));
    if (!isDamaged) same(found, value, "the reply");
    // Until it is whole there is none, and that it makes no sense is seen at once.
    for (let length = 0; length < bytes.length; length++) {
      const early = attempt([TgtError], () => decodeReply(bytes.subarray(0, length)));
      if (early.error !== undefined) assert.ok(error !== undefined && length >= 8);
      else if (early.value !== undefined) same(early.value, found, "a reply that came early");
    }
    if (found === undefined) return "refused";
    assert.not.ok(found.text.includes("\0"));
    return "accepted";
  },
});

const said = fc.constantFrom(
  "tgtadm: can't find the target\n",
  "tgtadm: this target already exists",
  "tgtadm: invalid request\n",
  "tgtadm: can't connect to the tgt daemon",
  "tgtadm: tgtd closed the socket",
  "",
);
const logged = fc.constantFrom(
  "tgtd: iscsi_tcp_init_portal(341) unable to bind server socket, Address already in use\n",
  "tgtd: backed_file_open(92) Could not open /x, Permission denied\n",
  "nothing\n",
);

const failures = target<{ stderr: string; exitCode: number; log: string }>({
  name: "tgt-errors",
  inputs: fc.record({
    stderr: mutatedText(said, (text) => text, { words: ["tgtadm: ", "\n", "(1) "] }).map(({ text }) => text),
    exitCode: fc.constantFrom(0, 1, 22, 107),
    log: mutatedText(logged, (text) => text, { words: ["(", "1)", "can't", "Cannot"] }).map(({ text }) =>
      text
    ),
  }),
  runs: 1500,
  check({ stderr, exitCode, log }) {
    const error = errorFromTgtadm(exitCode, stderr, "making a target");
    if (error === undefined) {
      assert.is(exitCode, 0, "a failure that is none");
      return "accepted";
    }
    assert.instance(error, TgtError);
    assert.ok(error.message.startsWith("making a target: "));
    assert.instance(withLog(error, log), TgtError);
    return "refused";
  },
});

export const tgtTargets: readonly Target[] = [...shown, written, replies, failures];
