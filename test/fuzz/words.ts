/** What people write and other programs say: hosts, sizes, ssh's complaints, tables of the kernel. */
import fc from "fast-check";
import type { ArgsDef } from "citty";
import { checkArguments } from "../../src/cli/arguments.ts";
import { parseAnswer, parseDump } from "../../src/demo/qemu-io-answer.ts";
import { UsageError } from "../../src/lib/errors.ts";
import * as units from "../../src/lib/units.ts";
import { parseTcpTable } from "../../src/role/survey/tcp-table.ts";
import { checkDestination, sshArguments } from "../../src/ssh/destination.ts";
import { explainEnd, explainLoss } from "../../src/ssh/explain.ts";
import { explainForward } from "../../src/ssh/explain-forward.ts";
import { isIP } from "node:net";
import * as assert from "uvu/assert";
import { attemptOwn } from "./expect.ts";
import { mutatedText } from "./mutation.ts";
import { type Target, target } from "./target.ts";

const plainText = (valid: fc.Arbitrary<string>, words: readonly string[] = []) =>
  mutatedText(valid, (text) => text, { words }).map(({ text }) => text);

/** To this length ssh's lines are cut. */
const maxLineLength = 2000;

/** Text that makes a careless pattern look at every part of it again and again. */
const repeated = fc.tuple(
  fc.constantFrom(
    " line 1: ",
    "bad ",
    ": terminating, 9",
    "=> ",
    "a",
    "11",
    "(1",
    " timed out",
    "No x host key ",
    "\n ",
  ),
  fc.nat(maxLineLength),
).map(([piece, times]) => piece.repeat(times).slice(0, maxLineLength));

const destination = target<string>({
  name: "ssh-destination",
  inputs: plainText(
    fc.constantFrom("node1", "root@node1", "root@fe80::1", "ssh://root@node1:22", "a.b-c_d"),
    [
      "-oProxyCommand=x",
      "@-",
      " ",
      "$(x)",
      "ssh://-",
      "\u0085",
    ],
  ),
  runs: 2000,
  check(text) {
    const { error } = attemptOwn([UsageError], () => checkDestination(text));
    if (error !== undefined) return "refused";
    for (const errand of [{ command: "x" }, { forwardTo: { address: "::1", port: 1 } }]) {
      const words = sshArguments(text, errand, false);
      const at = words.indexOf("--");
      assert.is(words[at + 1], text, "the host is not where a host stands");
      const host = text.slice(text.lastIndexOf("@") + 1);
      assert.not.ok(text.startsWith("-") || host.startsWith("-"), "a host that is an option");
      assert.not.ok(/[\s"'`$\\;&<>|]/.test(text), "a host that is more than one");
    }
    return "accepted";
  },
});

const sizes = target<{ text: string; kind: "size" | "rate" | "duration" }>({
  name: "units",
  inputs: fc.record({
    text: plainText(
      fc.oneof(
        fc.constantFrom(
          "4096",
          "64KiB",
          "1.5GiB",
          "100M",
          "10MB/s",
          "off",
          "90s",
          "1h30m",
          "500ms",
          "1.5h",
          "1d12h",
        ),
        fc.tuple(fc.nat(), fc.constantFrom("", "K", "MiB", "GB", "TiB/s", "s", "ms", "d")).map((pair) =>
          pair.join("")
        ),
      ),
      ["e9", "-", ".", "PiB", "NaN", "0x", "/s"],
    ),
    kind: fc.constantFrom("size", "rate", "duration"),
  }),
  runs: 2000,
  check({ text, kind }) {
    const parsers = { size: units.parseSize, rate: units.parseRate, duration: units.parseDuration };
    const { value, error } = attemptOwn([UsageError], () => parsers[kind](text.slice(0, 300)));
    if (error !== undefined) return "refused";
    if (kind === "rate" && value === null) return "accepted";
    assert.ok(
      Number.isSafeInteger(value) && (value as number) >= (kind === "rate" ? 1 : 0),
      `${text}: ${value}`,
    );
    // What is shown may be rounded up to more than can be given.
    if ((value as number) > 2 ** 52) return "accepted";
    if (kind === "duration") assert.match(units.formatDuration(value as number), /^\d/);
    else {
      // As it is shown it can be given again, and is about the same.
      const again = units.parseSize(units.formatSize(value as number));
      assert.ok(
        Math.abs(again - (value as number)) <= Math.max(1, 0.06 * (value as number)),
        `${text}: ${again}`,
      );
    }
    return "accepted";
  },
});

const complaints = fc.constantFrom(
  "ssh: connect to host h port 22: Connection refused",
  "ssh: Could not resolve hostname h: Name or service not known",
  "root@h: Permission denied (publickey,password).",
  "/root/.ssh/config: line 3: Bad configuration option: foo",
  "channel 0: open failed: connect failed: Connection refused",
  "client_loop: send disconnect: Broken pipe",
  'error: there is no command "role"\n  the commands are a, b',
  "error: something\n  do something",
  "",
);

const explanations = target<{ lines: string[]; exitCode: number | null; signal: string | null }>({
  name: "ssh-explanations",
  // One line of the far side's took minutes.
  regressions: [{ lines: [" line 1: ".repeat(222)], exitCode: 255, signal: null }],
  inputs: fc.record({
    lines: fc.array(
      fc.oneof(
        { weight: 6, arbitrary: plainText(complaints, ["\u001b[2J", ": line 1: ", "("]) },
        { weight: 1, arbitrary: repeated },
      ),
      { maxLength: 4 },
    ).map((texts) => texts.flatMap((text) => text.split("\n"))),
    exitCode: fc.constantFrom(0, 1, 126, 127, 255, 255, null),
    signal: fc.constantFrom(null, "SIGKILL"),
  }),
  runs: 700,
  check(ended) {
    const found = [
      explainEnd("node1", ended, false),
      explainEnd("node1", ended, true),
      explainForward("node1", ended),
    ];
    for (const problem of found) {
      if (problem === undefined) continue;
      assert.ok(problem.hint !== "" && typeof problem.message === "string");
      assert.not.ok(
        /undefined/.test(problem.message.replaceAll(ended.lines.join("\n"), "")),
        problem.message,
      );
    }
    if (ended.exitCode === 255) assert.ok(found[0] !== undefined, "a failure that is not told");
    const loss = explainLoss("node1", ended);
    assert.ok(loss === undefined || typeof loss === "string");
    return found[0] === undefined ? "refused" : "accepted";
  },
});

const tcpLine = fc.record({
  address: fc.constantFrom("0100007F", "00000000000000000000000001000000", "00000000", "FF"),
  port: fc.nat(65535),
  state: fc.constantFrom("0A", "01", "06"),
  inode: fc.nat(1 << 30),
}).map(({ address, port, state, inode }) => {
  const hex = port.toString(16).toUpperCase().padStart(4, "0");
  return `   0: ${address}:${hex} 00000000:0000 ${state} 00000000:00000000 00:00000000 00000000 0 0 ${inode} 1 x`;
});

const tcpTable = target<string>({
  name: "tcp-table",
  inputs: plainText(
    fc.array(tcpLine, { maxLength: 4 }).map((lines) => ["  sl  local_address", ...lines].join("\n")),
  ),
  runs: 1500,
  check(text) {
    const sockets = parseTcpTable(text);
    for (const { address, port, inode } of sockets) {
      assert.ok(isIP(address) !== 0, `the address ${address}`);
      assert.ok(Number.isInteger(port) && port >= 0 && port <= 65535, `the port ${port}`);
      assert.match(inode, /^\d+$/);
    }
    return sockets.length > 0 ? "accepted" : "refused";
  },
});

const definition: ArgsDef = {
  size: { type: "string" },
  verify: { type: "boolean" },
  handoff: { type: "enum", options: ["now"] },
  disk: { type: "positional", required: false },
};

const commandLine = target<string[]>({
  name: "command-line",
  inputs: fc.array(
    fc.oneof(
      fc.constantFrom(
        "--size",
        "--size=1",
        "--verify",
        "--no-verify",
        "--handoff",
        "now",
        "x",
        "--",
        "-",
        "-h",
      ),
      plainText(fc.constantFrom("--size=1", "--handoff=now", "--verify"), [
        "--",
        "=",
        "__proto__",
        "constructor",
      ]),
    ),
    { maxLength: 5 },
  ),
  runs: 2000,
  check(words) {
    const { error } = attemptOwn([UsageError], () => checkArguments(definition, words, "dlsm x"));
    if (error === undefined) {
      assert.ok(!words.some((word) => /^--?[^-=]*[A-Z]/.test(word)) || words.includes("--"));
    }
    return error === undefined ? "accepted" : "refused";
  },
});

const qemuIo = target<string>({
  name: "qemu-io-answers",
  inputs: plainText(
    fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => {
      const row = (at: number) =>
        `${at.toString(16).padStart(8, "0")}:  ${
          [...bytes.subarray(at, at + 16)]
            .map((byte) => byte.toString(16).padStart(2, "0")).join(" ")
        }  ................`;
      return `${row(0)}\n${
        row(16)
      }\nread 32/32 bytes at offset 512\n32 bytes, 1 ops; 00.00 sec (1 MiB/sec and 4808.9 ops/sec)\n`;
    }),
    [":  ", "read 32/32 bytes at offset 512\n", "and x ops/sec)"],
  ),
  runs: 1500,
  check(text) {
    const answer = parseAnswer(text, "read", 512, 32);
    if (answer === undefined) return "refused";
    const bytes = parseDump(answer.dump, 32);
    if (bytes !== undefined) assert.is(bytes.length, 32);
    assert.ok(Number.isFinite(answer.latencyMs) && answer.latencyMs >= 0, `a latency of ${answer.latencyMs}`);
    return bytes === undefined ? "refused" : "accepted";
  },
});

export const wordTargets: readonly Target[] = [
  destination,
  sizes,
  explanations,
  tcpTable,
  commandLine,
  qemuIo,
];
