/**
 * A child process that answers calls: over its stdio, or on the unix socket named as its argument. With `call`
 * and some sockets it calls each of them instead, and prints a line of JSON about how that ended.
 */
import process from "node:process";
import { connectUnix, type Handlers, joinStreams, listenUnix, serve } from "../../src/rpc/mod.ts";

const handlers: Handlers = {
  pid: () => Promise.resolve(process.pid),
  echo: (params) => Promise.resolve(params),
  wait: (_, { signal }) =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
  large: () => Promise.resolve("x".repeat(64 * 1024)),
};

const [path, ...more] = process.argv.slice(2);
if (path === undefined) {
  await serve(joinStreams(process.stdin, process.stdout), handlers, { heartbeatMs: 20 }).closed;
} else if (path === "call") {
  for (const each of more) console.log(JSON.stringify(await called(each)));
} else {
  await listenUnix(path, handlers, { handshakeTimeoutMs: 2000 });
  console.log("ready");
}

async function called(socket: string): Promise<{ name: string; message: string }> {
  try {
    const client = await connectUnix(socket, { handshakeTimeoutMs: 2000 });
    const answer = await client.call("anything", null, { timeoutMs: 20_000 });
    client.close();
    return { name: "answer", message: String(answer) };
  } catch (error) {
    const { constructor, message } = error as Error;
    return { name: constructor.name, message };
  }
}
