/** An engine that is killed in the very moment in which it is asked. */
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { engineFiles } from "../../src/engine/mod.ts";
import { engineStatus } from "../../src/role/engine-process.ts";
import { tempFolder } from "../helpers/temp.ts";

const test = suite("an engine that is killed while it is asked");

/** Accepts one connection as a dying engine does: nobody listens any more, then the connection ends. */
async function dyingEngine(end: (socket: Socket) => void): Promise<string> {
  const folder = tempFolder("run");
  const server: Server = createServer({ pauseOnConnect: true }, (socket) => {
    server.close();
    // By then what the other side sent lies there unread.
    const afterTurns = (turns: number) =>
      void (turns === 0 ? end(socket) : setImmediate(afterTurns, turns - 1));
    afterTurns(50);
  });
  await new Promise<void>((resolve) => server.listen(join(folder, engineFiles.controlSocket), resolve));
  return folder;
}

test("it is gone, however the connection ended: no record that cannot be read", async () => {
  const ends: Record<string, (socket: Socket) => void> = {
    closed: (socket) => socket.end(),
    // With unread data the system resets it.
    reset: (socket) => socket.destroy(),
    "cut in a frame": (socket) => socket.end("dlsm"),
  };
  for (const [how, end] of Object.entries(ends)) {
    const run = await dyingEngine(end);
    assert.is(await engineStatus({ state: run, run }), undefined, how);
  }
});

test.run();
