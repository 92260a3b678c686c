/** A child process that answers calls: over its stdio, or on the unix socket named as its argument. */
import process from "node:process";
import { type Handlers, joinStreams, listenUnix, serve } from "../../src/rpc/mod.ts";

const handlers: Handlers = {
  pid: () => Promise.resolve(process.pid),
  echo: (params) => Promise.resolve(params),
  wait: () => new Promise(() => {}),
};

const [path] = process.argv.slice(2);
if (path === undefined) {
  await serve(joinStreams(process.stdin, process.stdout), handlers, { heartbeatMs: 20 }).closed;
} else {
  await listenUnix(path, handlers);
  console.log("ready");
}
