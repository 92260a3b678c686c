/** Requests that wait for the host's lock, and callers that do not wait with them. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { acquire } from "../../src/lib/lock.ts";
import { roleHandlers } from "../../src/role/handlers.ts";
import { lockPath } from "../../src/role/layout.ts";
import { memoryPair } from "../../src/rpc/local.ts";
import { localPair, RpcClient, serve, type Served } from "../../src/rpc/mod.ts";
import { tempFolder } from "../helpers/temp.ts";
import { planOf } from "./plan.ts";

const test = suite("one at a time");

interface Asked {
  readonly client: RpcClient;
  readonly served: Served;
  readonly cancel: AbortController;
}

/** One request while another process has the lock; `leave` is done before it gives it back. */
async function ask(leave: (asked: Asked) => Promise<unknown>) {
  const folder = tempFolder();
  const folders = { state: join(folder, "state"), run: join(folder, "run") };
  for (const each of Object.values(folders)) mkdirSync(each, { mode: 0o700 });
  const plan = planOf(join(folder, "disk"));
  const roles = roleHandlers(folders);
  const [here, there] = memoryPair();
  const served = serve(there, roles.handlers);
  const client = await RpcClient.connect(here);
  const lock = acquire(lockPath(folders))!;
  const cancel = new AbortController();
  const answered = client.call("destination.plan", plan, { signal: cancel.signal })
    .then(() => true, () => false);
  // The role has it, and waits.
  await client.call("destination.list", {});
  await leave({ client, served, cancel });
  lock.release();
  const isDone = await answered;
  await roles.close();
  const after = roleHandlers(folders);
  const asker = await localPair(after.handlers);
  const ids = (await asker.call("destination.list", {}) as { id: string }[]).map(({ id }) => id);
  asker.close();
  client.close();
  return { isDone, ids };
}

test("a request whose caller has gone, or has given it up, has no effect any more", async () => {
  const gone = await ask(({ client, served }) => {
    client.close();
    return served.closed;
  });
  assert.equal(gone, { isDone: false, ids: [] });
  const givenUp = await ask(({ client, cancel }) => {
    cancel.abort();
    // Its answer says that the role knows of the former, too.
    return client.call("destination.list", {});
  });
  assert.equal(givenUp, { isDone: false, ids: [] });
});

test("one that is waited for has", async () => {
  assert.equal(await ask(() => Promise.resolve()), { isDone: true, ids: ["abcd1234"] });
});

test.run();
