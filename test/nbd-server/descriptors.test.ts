/** A server that may open no more files: it lives, does not spin, serves whom it has, and goes on later. */
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { command } from "../../src/nbd-server/protocol.ts";
import { connectUnix, type RpcClient } from "../../src/rpc/mod.ts";
import { processorSeconds } from "../helpers/memory.ts";
import { needing } from "../helpers/needs.ts";
import { tempFolder } from "../helpers/temp.ts";
import { until } from "../helpers/until.ts";
import { RawClient } from "./raw-client.ts";

const test = suite("servers out of file descriptors");
const unless = "Deno" in globalThis ? "Deno itself panics without file descriptors" : undefined;
const withLimit = needing(test, ["prlimit"], { unless });

const limit = 80;

async function startServer(...paths: string[]): Promise<ChildProcess> {
  const script = join(import.meta.dirname!, "fixtures-sockets.ts");
  const program = [process.execPath, script, ...paths];
  const child = spawn("prlimit", [`--nofile=${limit}:${limit}`, ...program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise((resolve) => child.stdout!.once("data", resolve));
  return child;
}

/** Errors are nothing to it: whether it is accepted is what is tested. */
async function crowd(path: string): Promise<Socket[]> {
  const sockets = Array.from({ length: limit + 20 }, () => connect({ path }).on("error", () => {}));
  await Promise.all(
    sockets.map((socket) => new Promise((resolve) => socket.once("connect", resolve).once("close", resolve))),
  );
  return sockets;
}

withLimit("NBD and rpc: no crash, no spinning, and new clients when there is room again", async () => {
  const folder = tempFolder("fds");
  const [nbdPath, rpcPath] = [join(folder, "nbd"), join(folder, "rpc")];
  const child = await startServer(nbdPath, rpcPath);
  const pid = child.pid!;
  try {
    const nbd = await RawClient.ready(nbdPath);
    const rpc = await connectUnix(rpcPath);
    const serves = async () => {
      assert.is((await nbd.request({ type: command.read, length: 4096 })).error, 0);
      assert.is(await rpc.call("echo", "here"), "here");
    };
    for (const path of [nbdPath, rpcPath]) {
      const sockets = await crowd(path);
      await until(() => readdirSync(`/proc/${pid}/fd`).length >= limit - 1, "there are no more descriptors");
      await serves();
      const before = processorSeconds(pid);
      await new Promise((resolve) => setTimeout(resolve, 2000));
      const seconds = processorSeconds(pid) - before;
      assert.ok(seconds < 1, `${seconds} s of processor time in 2 s of waiting`);
      await serves();
      for (const socket of sockets) socket.destroy();
      await until(() => readdirSync(`/proc/${pid}/fd`).length < limit - 20, "there are some again");
      const late = await eventually(() => RawClient.ready(nbdPath));
      assert.is((await late.request({ type: command.read, length: 512 })).error, 0);
      late.close();
      const lateRpc: RpcClient = await eventually(() => connectUnix(rpcPath));
      assert.is(await lateRpc.call("echo", 1), 1);
      lateRpc.close();
    }
    nbd.close();
    rpc.close();
    assert.is(child.exitCode, null);
  } finally {
    child.kill("SIGKILL");
  }
});

/** What was accepted too late is cut off, whoever asked. */
async function eventually<T>(connect: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + 30_000;
  for (;;) {
    try {
      return await connect();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

test.run();
