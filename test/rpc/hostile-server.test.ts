/** Servers that break the protocol: the client, a process of its own, gives one clear error and stays small. */
import { type ChildProcess, spawn } from "node:child_process";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { peakBytes } from "../helpers/memory.ts";
import { tempFolder } from "../helpers/temp.ts";
import { banner, bombs, frame, HostileSocket, length, maxFrameBytes, mebibyte, rawFrame } from "./hostile.ts";

const test = suite("rpc: hostile servers");

/** Beside what the client needs anyhow: a message of the largest size, and what it becomes. */
const maxGrowthBytes = 320 * mebibyte;

interface Script {
  readonly what: string;
  /** Said at once; the script goes on when the call, whose id is 0, has come. Otherwise it begins at once. */
  readonly firstLine?: string;
  play(peer: HostileSocket): Promise<void> | void;
  /** The class of the error and what it says; "answer" for none. */
  readonly name: string;
  readonly message: RegExp;
}

const result = frame({ type: "result", id: 0, value: "well" });
const beat = frame({ type: "beat" });

const handshakes: Script[] = [
  script(
    "garbage for a banner",
    "RpcHandshakeError",
    /does not speak dlsm-rpc; it said "/,
    (peer) => peer.say(Buffer.alloc(mebibyte, 0xee)),
  ),
  script(
    "a login script's chatter, for ever",
    "RpcHandshakeError",
    /it said "Welcome/,
    (peer) => peer.flood(Buffer.from("Welcome to the machine. ".repeat(1000)), 1000),
  ),
  script(
    "a banner with ten thousand words",
    "RpcHandshakeError",
    /does not speak/,
    (peer) => peer.say("dlsm-rpc 1" + " x".repeat(10_000) + "\n"),
  ),
  script("nothing", "RpcSilentError", /nothing for 2000 ms/, () => {}),
  script(
    "a banner that comes byte by byte, and never ends",
    "RpcSilentError",
    /for 2000 ms/,
    async (peer) => {
      for (const letter of banner.trim() + " ".repeat(500)) {
        if (!peer.socket.writable) return;
        peer.say(letter);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    },
  ),
  script(
    "messages of one byte at most",
    "RpcHandshakeError",
    /takes messages of 1 bytes/,
    (peer) => peer.say("dlsm-rpc 1 max-frame=1\n"),
  ),
  {
    ...script("absurd numbers in the banner", "answer", /well/, (peer) => peer.say(result)),
    firstLine: `dlsm-rpc 1 max-frame=${2 ** 53 - 1} max-calls=1e9 beat-ms=${2 ** 53 - 1} =\n`,
  },
];

const messages: Script[] = [
  script(
    "the banner twice",
    "RpcProtocolError",
    /announced a message of \d+ bytes/,
    (peer) => peer.say(banner),
  ),
  script(
    "garbage after the banner",
    "RpcProtocolError",
    /announced a message of 4008636142 bytes/,
    (peer) => peer.say(Buffer.alloc(100, 0xee)),
  ),
  script(
    "an empty message",
    "RpcProtocolError",
    /announced a message of 0 bytes/,
    (peer) => peer.say(length(0)),
  ),
  script(
    "a message one byte too long",
    "RpcProtocolError",
    /1 to 16777216 are allowed/,
    (peer) => peer.say(length(maxFrameBytes + 1)),
  ),
  script("a long message that is only announced", "RpcClosedError", /ended inside a message/, (peer) => {
    peer.say(length(maxFrameBytes), "x");
    peer.socket.end();
  }),
  script(
    "garbage for a message",
    "RpcProtocolError",
    /cannot be read|makes no sense/,
    (peer) => peer.say(rawFrame(Buffer.alloc(1000, 0xee))),
  ),
  script(
    "two values in a message",
    "RpcProtocolError",
    /1 bytes too many/,
    (peer) => peer.say(rawFrame(beat.subarray(4), "\0")),
  ),
  ...[null, 7, [], {}, { type: "result", id: -1 }, { type: "result", id: 0.5 }, { type: "error", id: 0 }].map(
    (value) =>
      script(
        `a message that is ${JSON.stringify(value)}`,
        "RpcProtocolError",
        /makes no sense/,
        (peer) => peer.say(frame(value)),
      ),
  ),
  script(
    "an answer to nothing",
    "RpcProtocolError",
    /the call 99, which is not open/,
    (peer) => peer.say(frame({ type: "result", id: 99, value: null })),
  ),
  script(
    "a call, from the wrong side",
    "RpcProtocolError",
    /sent a message of type call/,
    (peer) => peer.say(frame({ type: "call", id: 0, method: "m", params: null })),
  ),
  script(
    "an error of a kind that every object has",
    "RemoteError",
    /^boo$/,
    (peer) => peer.say(frame({ type: "error", id: 0, kind: "constructor", message: "boo" })),
  ),
  script(
    "an error with a message of 15 MiB",
    "FailedError",
    /^x+$/,
    (peer) =>
      peer.say(
        frame({ type: "error", id: 0, kind: "FailedError", message: "x".repeat(15 * mebibyte) }),
      ),
  ),
  script("a hundred thousand beats", "answer", /well/, async (peer) => {
    await peer.flood(Buffer.concat(Array(1000).fill(beat)), 100);
    peer.say(result);
  }),
  script("a hundred thousand words of progress", "answer", /well/, async (peer) => {
    await peer.flood(Buffer.concat(Array(1000).fill(frame({ type: "progress", id: 0, value: "x" }))), 100);
    peer.say(result);
  }),
  script("progress of 16 MiB, twenty times", "answer", /well/, async (peer) => {
    const value = Buffer.alloc(maxFrameBytes - 100);
    await peer.flood(frame({ type: "progress", id: 0, value }), 20);
    peer.say(result);
  }),
  ...bombs("result", 0).map(({ what, frame, error }) =>
    script(`a bomb: ${what}`, "RpcProtocolError", error, (peer) => peer.say(frame))
  ),
];

function script(what: string, name: string, message: RegExp, play: Script["play"]): Script {
  return { what, name, message, play };
}

/** One client calls all of them, one after the other. */
async function callAll(scripts: readonly Script[]): Promise<void> {
  const folder = tempFolder("rpc");
  const servers = await Promise.all(scripts.map((each, index) => listen(each, join(folder, String(index)))));
  const child = startChild("call", ...scripts.map((_, index) => join(folder, String(index))));
  try {
    const lines = createInterface(child.stdout!)[Symbol.asyncIterator]();
    let basePeakBytes: number | undefined;
    for (const { what, name, message } of scripts) {
      const { value } = await lines.next();
      assert.ok(value !== undefined, `the client died of ${what}`);
      const ended = JSON.parse(value) as { name: string; message: string };
      assert.is(ended.name, name, `${what}: ${ended.message.slice(0, 300)}`);
      assert.match(ended.message, message, what);
      basePeakBytes ??= peakBytes(child.pid!);
      const growthBytes = peakBytes(child.pid!) - basePeakBytes;
      assert.ok(growthBytes < maxGrowthBytes, `${what}: ${growthBytes / mebibyte} MiB`);
    }
  } finally {
    child.kill("SIGKILL");
    for (const server of servers) server.close();
  }
}

function startChild(...parameters: string[]): ChildProcess {
  const runtimeArguments = "Deno" in globalThis ? ["run", "-A"] : [];
  return spawn(process.execPath, [
    ...runtimeArguments,
    join(import.meta.dirname!, "fixtures-child.ts"),
    ...parameters,
  ], {
    stdio: ["ignore", "pipe", "inherit"],
  });
}

function listen({ play, firstLine }: Script, path: string): Promise<Server> {
  const server = createServer((socket) => {
    const peer = new HostileSocket(socket);
    let heard = "";
    let isWaiting = true;
    socket.on("data", (chunk) => {
      heard += isWaiting ? chunk.toString("latin1") : "";
      if (isWaiting && (firstLine === undefined || heard.includes("anything"))) {
        isWaiting = false;
        void play(peer);
      }
    });
    if (firstLine !== undefined) peer.say(firstLine);
  });
  return new Promise((resolve) => server.listen(path, () => resolve(server)));
}

test("a conversation that does not begin: the error says why", () => callAll(handshakes));
test("a conversation that breaks off, or is too much: the error says why, and little is held", () =>
  callAll(messages.map((each) => ({ firstLine: banner, ...each }))));

test.run();
