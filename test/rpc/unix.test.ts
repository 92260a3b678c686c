import { Buffer } from "node:buffer";
import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { LockedError, PreconditionError } from "../../src/lib/errors.ts";
import {
  connectUnix,
  type Handlers,
  joinStreams,
  listenUnix,
  NotListeningError,
  RpcClient,
  RpcClosedError,
  RpcHandshakeError,
} from "../../src/rpc/mod.ts";
import { rejection } from "../helpers/rejection.ts";
import { tempFolder } from "../helpers/temp.ts";

const handlers: Handlers = {
  echo: (params) => Promise.resolve(params),
  wait: () => new Promise(() => {}),
};

const runtimeArguments = "Deno" in globalThis ? ["run", "-A"] : [];

function startChild(...parameters: string[]): ChildProcess {
  const script = join(import.meta.dirname!, "fixtures-child.ts");
  return spawn(process.execPath, [...runtimeArguments, script, ...parameters], {
    stdio: ["pipe", "pipe", "inherit"],
  });
}

function exited(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => child.once("exit", () => resolve()));
}

const test = suite("rpc: unix sockets and pipes");

test("listenUnix() and connectUnix() carry calls, several clients at once, and large messages", async () => {
  const path = join(tempFolder(), "s");
  const listener = await listenUnix(path, handlers);
  assert.is(statSync(path).mode & 0o777, 0o600);
  const clients = await Promise.all([connectUnix(path), connectUnix(path), connectUnix(path)]);
  const large = Buffer.alloc(3 * 1024 * 1024, "dlsm");
  for (const client of clients) {
    const answer = await client.call("echo", large) as Uint8Array;
    assert.is(Buffer.compare(answer, large), 0);
  }
  const open = clients.map((client) => rejection(client.call("wait"), RpcClosedError));
  await listener.close();
  await Promise.all([...open, ...clients.map((client) => client.closed)]);
  assert.not(existsSync(path));
  await rejection(connectUnix(path), NotListeningError);
});

test("listenUnix() leaves the process's umask as it was", async () => {
  const folder = tempFolder();
  const listener = await listenUnix(join(folder, "s"), handlers);
  writeFileSync(join(folder, "file"), "");
  assert.is(statSync(join(folder, "file")).mode & 0o777, 0o666 & ~process.umask());
  await listener.close();
});

test("listenUnix() refuses a live socket, which goes on, and a path that is no socket", async () => {
  const folder = tempFolder();
  const path = join(folder, "s");
  const listener = await listenUnix(path, handlers);
  await rejection(listenUnix(path, {}), LockedError);
  const client = await connectUnix(path);
  assert.is(await client.call("echo", 1), 1);
  client.close();
  await listener.close();

  const file = join(folder, "file");
  writeFileSync(file, "precious");
  await rejection(listenUnix(file, handlers), PreconditionError);
  assert.is(readFileSync(file, "utf8"), "precious");
  await rejection(listenUnix(join(folder, "missing", "s"), handlers), PreconditionError);
});

test("listenUnix() replaces the socket of a killed process", async () => {
  const path = join(tempFolder(), "s");
  const child = startChild(path);
  const end = exited(child);
  await new Promise((resolve) => child.stdout!.once("data", resolve));
  const before = await connectUnix(path);
  assert.is(await before.call("pid"), child.pid);
  const open = rejection(before.call("wait"), RpcClosedError);
  child.kill("SIGKILL");
  await end;
  await open;
  assert.ok(existsSync(path));
  await rejection(connectUnix(path), NotListeningError);
  const listener = await listenUnix(path, handlers);
  const after = await connectUnix(path);
  assert.is(await after.call("echo", "new"), "new");
  after.close();
  await listener.close();
});

test("a path of 107 bytes works, one of 108 is refused on both sides", async () => {
  const folder = tempFolder();
  const longest = join(folder, "s".repeat(107 - folder.length - 1));
  assert.is(Buffer.byteLength(longest), 107);
  const listener = await listenUnix(longest, handlers);
  const client = await connectUnix(longest);
  assert.is(await client.call("echo", 1), 1);
  client.close();
  await listener.close();
  for (const path of [longest + "s", join(folder, "ä".repeat(50))]) {
    const error = await rejection(listenUnix(path, handlers), PreconditionError);
    assert.match(error.message, "at most 107");
    await rejection(connectUnix(path), PreconditionError);
  }
});

test("joinStreams() carries calls to a child and back, and its death is the end", async () => {
  const child = startChild();
  const end = exited(child);
  const client = await RpcClient.connect(joinStreams(child.stdout!, child.stdin!));
  assert.is(await client.call("pid"), child.pid);
  const large = Buffer.alloc(2 * 1024 * 1024, "pipe");
  const answers = await Promise.all([1, 2, 3].map(() => client.call("echo", large)));
  for (const answer of answers) assert.is(Buffer.compare(answer as Uint8Array, large), 0);
  const open = rejection(client.call("wait"), RpcClosedError);
  child.kill("SIGKILL");
  await open;
  await client.closed;
  await end;
});

test("a child that is stopped, not dead, is noticed", async () => {
  const child = startChild();
  const end = exited(child);
  const stream = joinStreams(child.stdout!, child.stdin!);
  const client = await RpcClient.connect(stream, { heartbeatMs: 100, silentBeats: 20 });
  assert.is(await client.call("pid"), child.pid);
  // Not child.kill(): under Deno it takes every signal for the end and closes the pipe.
  process.kill(child.pid!, "SIGSTOP");
  const error = await rejection(client.call("wait"), RpcClosedError);
  assert.match(error.message, "silent");
  child.kill("SIGKILL");
  await end;
});

test("close() of the client lets a serving child end by itself", async () => {
  const child = startChild();
  const end = exited(child);
  const client = await RpcClient.connect(joinStreams(child.stdout!, child.stdin!));
  const open = rejection(client.call("wait"), RpcClosedError);
  client.close();
  await open;
  await end;
  assert.is(child.exitCode, 0);
});

test("a program that is no dlsm is a handshake error with what it said", async () => {
  const child = spawn("sh", ["-c", "echo 'no such command'; exit 127"], {
    stdio: ["pipe", "pipe", "ignore"],
  });
  const end = exited(child);
  const error = await rejection(
    RpcClient.connect(joinStreams(child.stdout!, child.stdin!)),
    RpcHandshakeError,
  );
  assert.match(error.message, /no such command|connection broke/);
  await end;
});

test("a socket without permission says so", async () => {
  if (process.getuid?.() === 0) return;
  const path = join(tempFolder(), "s");
  const listener = await listenUnix(path, handlers);
  chmodSync(path, 0);
  const error = await rejection(connectUnix(path), PreconditionError);
  assert.not(error instanceof NotListeningError);
  await listener.close();
});

test.run();
