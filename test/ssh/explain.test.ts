/** Why ssh ended, from what it said: its words are recorded. See failures.test.ts for the real thing. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { explainEnd, explainLoss, type ProblemKind } from "../../src/ssh/explain.ts";

const test = suite("ssh explanations");
const ended = (exitCode: number | null, ...lines: string[]) => ({ exitCode, signal: null, lines });

const recorded: readonly (readonly [words: string, kind: ProblemKind, message: RegExp])[] = [
  [
    "ssh: connect to host 10.9.9.9 port 22: Connection timed out",
    "network",
    /does not answer .*10\.9\.9\.9 port 22/,
  ],
  ["Connection timed out during banner exchange", "network", /does not answer/],
  ["ssh: connect to host 192.0.2.1 port 22: No route to host", "network", /no route .*192\.0\.2\.1/],
  [
    "ssh: connect to host 192.0.2.9 port 22: Network is unreachable",
    "network",
    /network .* cannot be reached/,
  ],
  ["ssh: connect to host 127.0.0.1 port 4: Connection refused", "network", /refuses .*port 4/],
  ["ssh: Could not resolve hostname h: Temporary failure in name resolution", "name", /Temporary failure/],
  [
    "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures",
    "permission",
    /too many keys/,
  ],
  ["root@h: Permission denied (publickey).", "permission", /no key or agent was accepted$/],
  ["root@h: Permission denied (publickey,password).", "permission", /no terminal to ask for a password/],
  [
    "No ED25519 host key is known for h and you have requested strict checking.",
    "host-key",
    /not known here/,
  ],
  ["kex_exchange_identification: Connection closed by remote host", "network", /not accepted/],
  ["/root/.ssh/config: line 3: Bad configuration option: foo", "configuration", /line 3/],
  ["Bad owner or permissions on /root/.ssh/config", "configuration", /Bad owner/],
  ["something new", "lost", /something new/],
];

for (const [words, kind, message] of recorded) {
  test(`"${words}" is explained`, () => {
    const problem = explainEnd("node1", ended(255, words), false)!;
    assert.is(problem.kind, kind);
    assert.match(problem.message, message);
    assert.match(problem.message, /node1/);
    assert.ok(problem.hint.length > 0);
  });
}

test("what explains an end goes before what follows from it", () => {
  const jump = ended(
    255,
    "ssh: Could not resolve hostname gate: Name or service not known",
    "kex_exchange_identification: Connection closed by remote host",
    "Connection closed by UNKNOWN port 65535",
  );
  assert.match(explainEnd("node1", jump, false)!.message, /resolved \(gate: Name/);
  const changed = ended(
    255,
    "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @",
    "Host key verification failed.",
  );
  assert.match(explainEnd("node1", changed, false)!.message, /not the one that is known/);
});

test("no advice takes the check of host keys away", () => {
  const changed = "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @";
  for (const words of [changed, "Host key verification failed."]) {
    const { message, hint } = explainEnd("node1", ended(255, words), false)!;
    assert.not.match(`${message} ${hint}`, /StrictHostKeyChecking|accept-new|\/dev\/null/i);
    assert.match(hint, /fingerprint/);
  }
});

test("a password is not missed where there is a terminal", () => {
  const problem = explainEnd("node1", ended(255, "root@h: Permission denied (publickey,password)."), true)!;
  assert.match(problem.message, /no key, agent or password was accepted$/);
});

test("what the dlsm there says at its start is carried over, with its advice", () => {
  const lines = ["some banner", "error: the state folder /x is open", "  chmod 700 /x"];
  const problem = explainEnd("node1", ended(3, ...lines), false)!;
  assert.is(problem.kind, "command");
  assert.match(problem.message, /node1.*the state folder \/x is open/);
  assert.is(problem.hint, "on node1: chmod 700 /x");
});

test("a dlsm that is missing, cannot be run, or is too old", () => {
  assert.is(explainEnd("h", ended(127, "sh: 1: exec: dlsm: not found"), false)!.kind, "missing");
  assert.is(explainEnd("h", ended(126, "sh: 1: exec: dlsm: Permission denied"), false)!.kind, "missing");
  assert.is(explainEnd("h", ended(2, 'error: there is no command "role"'), false)!.kind, "too-old");
});

test("an end in good order, by ourselves, or without a word is not explained", () => {
  assert.is(explainEnd("h", ended(0, "a warning"), false), undefined);
  assert.is(explainEnd("h", ended(1, "a warning"), false), undefined);
  const killed = { exitCode: null, signal: "SIGTERM", lines: [], wasKilled: true };
  assert.is(explainEnd("h", killed, false), undefined);
  assert.is(explainLoss("h", killed), undefined);
  assert.match(explainEnd("h", { ...killed, wasKilled: false }, false)!.message, /SIGTERM/);
});

test("a lost connection is explained by ssh's words, not by those of the far side", () => {
  const chatter = "engine: 10.0.0.7 port 3260: Connection refused";
  const cut = ended(255, chatter, "client_loop: send disconnect: Broken pipe");
  assert.is(explainLoss("h", cut), "client_loop: send disconnect: Broken pipe");
  assert.match(explainLoss("h", ended(255, chatter))!, /was killed/);
  assert.match(explainLoss("h", ended(0))!, /dlsm on h ended/);
  assert.match(explainLoss("h", ended(1, "error: out of memory"))!, /out of memory/);
});

test.run();
