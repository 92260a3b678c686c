/** A process that serves NBD and rpc on two sockets, named as its arguments, until it is killed. */
import { NbdServer } from "../../src/nbd-server/mod.ts";
import { listenUnix } from "../../src/rpc/mod.ts";
import { MemoryDevice } from "./memory-device.ts";

const [nbdPath, rpcPath] = process.argv.slice(2);
await new NbdServer(new MemoryDevice(1024 * 1024), { maxConnections: 100, maxBytes: 256 * 1024 * 1024 })
  .listen(nbdPath);
await listenUnix(rpcPath, { echo: (params) => Promise.resolve(params) }, { maxConversations: 1000 });
console.log("ready");
