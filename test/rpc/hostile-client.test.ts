/**
 * Clients that break the protocol, flood or vanish: the server, a process of its own, cuts them off, stays small,
 * and answers a well-behaved client all the while.
 */
import { Buffer } from "node:buffer";
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { connectUnix, RemoteError, type RpcClient, RpcHandshakeError } from "../../src/rpc/mod.ts";
import { peakBytes } from "../helpers/memory.ts";
import { rejection } from "../helpers/rejection.ts";
import { tempFolder } from "../helpers/temp.ts";
import { until } from "../helpers/until.ts";
import { banner, bombs, frame, HostileSocket, length, maxFrameBytes, mebibyte, rawFrame } from "./hostile.ts";

const test = suite("rpc: hostile clients");

/** Beside what the server needs anyhow, whatever is done to it here. */
const maxGrowthBytes = 320 * mebibyte;
const places = 64;

let child: ChildProcess;
let path: string;
let good: RpcClient;
let basePeakBytes: number;

test.before(async () => {
  path = join(tempFolder("rpc"), "s");
  const runtimeArguments = "Deno" in globalThis ? ["run", "-A"] : [];
  const script = join(import.meta.dirname!, "fixtures-child.ts");
  child = spawn(process.execPath, [...runtimeArguments, script, path], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise((resolve) => child.stdout!.once("data", resolve));
  good = await connectUnix(path);
  assert.is(await good.call("echo", 1), 1);
  basePeakBytes = peakBytes(child.pid!);
});

test.after(() => {
  good?.close();
  child?.kill("SIGKILL");
});

/** The body, and afterwards: the server lives, is small and answers. */
function hostile(what: string, body: () => Promise<void>): void {
  test(what, async () => {
    await body();
    const payload = { text: "still here", bytes: 2 ** 40 };
    assert.equal(await good.call("echo", payload, { timeoutMs: 60_000 }), payload);
    const growthBytes = peakBytes(child.pid!) - basePeakBytes;
    assert.ok(growthBytes < maxGrowthBytes, `${growthBytes / mebibyte} MiB`);
  });
}

function connected(count: number): Promise<HostileSocket[]> {
  return Promise.all(Array.from({ length: count }, () => HostileSocket.connect(path)));
}

const call = (id: number, method: string, more: object = {}) =>
  frame({ type: "call", id, method, params: null, ...more });

const nonsense: [string, ...(string | Uint8Array)[]][] = [
  ["garbage for a banner", Buffer.alloc(1000, 0xee)],
  ["a request of another protocol", "GET / HTTP/1.1\r\nHost: dlsm\r\n\r\n"],
  ["a banner too long", "dlsm-rpc 1 " + "x".repeat(1000)],
  ["another version", "dlsm-rpc 2\n"],
  ["messages of one byte at most", "dlsm-rpc 1 max-frame=1\n"],
  ["the banner twice", banner, banner],
  ["garbage after the banner", banner, Buffer.alloc(1000, 0xee)],
  ["an empty message", banner, length(0)],
  ["a message of 4 GiB", banner, length(0xffffffff)],
  ["garbage for a message", banner, rawFrame(Buffer.alloc(1000, 0xee))],
  ["no message", banner, frame(null)],
  ["a call without a method", banner, frame({ type: "call", id: 0, params: null })],
  ["a call with a deadline that has passed", banner, call(0, "echo", { timeoutMs: 0 })],
  ["a call with half an id", banner, call(0.5, "echo")],
  ["the same call twice", banner, call(7, "wait"), call(7, "wait")],
  ["an answer, from the wrong side", banner, frame({ type: "result", id: 0, value: null })],
  ["more calls than its credit", banner, ...Array.from({ length: 33 }, (_, id) => call(id, "wait"))],
];

hostile("nonsense of every kind is cut off", async () => {
  for (const [what, ...parts] of nonsense) {
    const peer = await HostileSocket.connect(path);
    peer.say(...parts);
    let isCutOff = false;
    void peer.cutOff().then(() => isCutOff = true);
    // Sooner than silence is noticed.
    await until(() => isCutOff, `${what}: it is cut off`, 15_000);
  }
});

hostile("bombs are refused before they are unpacked", async () => {
  for (const { frame } of bombs("call", 0)) {
    const peer = await HostileSocket.connect(path);
    peer.say(banner, frame);
    await peer.cutOff();
  }
});

hostile("a call cut off at any byte: nothing comes of it", async () => {
  const whole = Buffer.concat([Buffer.from(banner), call(0, "echo")]);
  for (let bytes = 0; bytes <= whole.length; bytes++) {
    const peer = await HostileSocket.connect(path);
    peer.say(whole.subarray(0, bytes));
    peer.socket.end();
    await peer.cutOff();
  }
});

hostile("the largest messages, announced on every connection and never sent", async () => {
  const peers = await connected(places - 1);
  for (const peer of peers) peer.say(banner, length(maxFrameBytes), "x");
  await Promise.all(peers.map((peer) => peer.sent()));
  for (let round = 0; round < 20; round++) assert.is(await good.call("echo", round), round);
  for (const peer of peers) peer.socket.destroy();
});

hostile("all calls of the credit, on every connection, and no answer is read", async () => {
  const peers = await connected(places - 1);
  const calls = Buffer.concat(Array.from({ length: 32 }, (_, id) => call(id, "large")));
  for (const peer of peers) peer.say(banner, calls);
  for (let round = 0; round < 20; round++) assert.is(await good.call("echo", round), round);
  for (const peer of peers) peer.socket.destroy();
});

hostile("a flood of cancellations, of calls that are not there", async () => {
  const peer = await HostileSocket.connect(path);
  peer.say(banner);
  const cancels = Buffer.concat(Array.from({ length: 1000 }, (_, id) => frame({ type: "cancel", id })));
  const flood = peer.flood(cancels, 200);
  for (let round = 0; round < 20; round++) assert.is(await good.call("echo", round), round);
  await flood;
  peer.socket.destroy();
});

hostile("calls and their cancellations by turns: none is answered twice", async () => {
  const peer = await HostileSocket.connect(path);
  peer.say(banner);
  peer.socket.resume();
  const both = Array.from(
    { length: 100 },
    (_, id) => [call(id, "nobody knows it"), frame({ type: "cancel", id })],
  );
  await peer.flood(Buffer.concat(both.flat().slice(0, 40)), 1);
  assert.is(await good.call("echo", 1), 1);
  peer.socket.destroy();
});

hostile("a method with a name of 10 MiB: the error is short", async () => {
  const client = await connectUnix(path);
  const error = await rejection(client.call("x".repeat(10 * mebibyte)), Error);
  assert.ok(error.message.length < 300);
  client.close();
});

hostile("an answer that the caller cannot take is a short error, and the conversation goes on", async () => {
  const client = await connectUnix(path, { maxFrameBytes: 1024 });
  assert.match((await rejection(client.call("large"), RemoteError)).message, "cannot be sent");
  assert.is(await client.call("echo", "short"), "short");
  client.close();
});

hostile("a deadline beyond what timers can count has not passed", async () => {
  const peer = await HostileSocket.connect(path);
  peer.say(banner, call(0, "wait", { timeoutMs: 1e300 }));
  let said = "";
  peer.socket.on("data", (chunk) => said += chunk.toString("latin1"));
  await until(() => said.includes("beat-ms"), "its banner is here");
  for (let round = 0; round < 20; round++) assert.is(await good.call("echo", round), round);
  assert.not.match(said, "deadline");
  peer.socket.destroy();
});

hostile("connections that say nothing are dropped in the end", async () => {
  const peers = await connected(places - 1);
  await Promise.all(peers.map((peer) => peer.cutOff()));
});

hostile("conversations beyond the limit are cut off at once; there is room again when one ends", async () => {
  const clients: RpcClient[] = [];
  while (clients.length < places - 1) clients.push(await connectUnix(path));
  await rejection(connectUnix(path), RpcHandshakeError);
  clients.pop()!.close();
  let another: RpcClient | undefined;
  while (another === undefined) another = await connectUnix(path).catch(() => undefined);
  assert.is(await another.call("echo", "new"), "new");
  for (const client of [another, ...clients]) client.close();
});

test.run();
