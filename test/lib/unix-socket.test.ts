import { spawn } from "node:child_process";
import { existsSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server } from "node:net";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { LockedError, PreconditionError } from "../../src/lib/errors.ts";
import { closeUnixSocket, listenOnUnixSocket, maxSocketPathBytes } from "../../src/lib/unix-socket.ts";
import { tempFolder } from "../helpers/temp.ts";

const test = suite("unix sockets");

async function refusal(
  path: string,
  kind: new (message: string) => Error = PreconditionError,
): Promise<string> {
  const server = createServer();
  try {
    await listenOnUnixSocket(server, path);
  } catch (error) {
    assert.instance(error, kind);
    return (error as Error).message;
  }
  server.close();
  throw new Error(`listening on ${path} worked`);
}

function canConnect(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => resolve(false));
  });
}

/** The file of a server that died without removing it. */
async function makeStale(path: string): Promise<void> {
  const code = `require("net").createServer().listen(${
    JSON.stringify(path)
  }, () => process.kill(process.pid, 9))`;
  const isDeno = "Deno" in globalThis;
  const child = isDeno
    ? spawn(process.execPath, [
      "eval",
      `import { createRequire } from "node:module"; ` +
      `const require = createRequire("file:///x.js"); ${code}`,
    ])
    : spawn(process.execPath, ["-e", code]);
  await new Promise((resolve) => child.on("close", resolve));
  assert.ok(statSync(path).isSocket());
}

test("makes the socket private and leaves the umask as it was", async () => {
  const path = join(tempFolder(), "s");
  const umask = process.umask();
  const server = createServer();
  const file = await listenOnUnixSocket(server, path);
  assert.is(statSync(path).mode & 0o777, 0o600);
  assert.is(process.umask(), umask);
  assert.ok(await canConnect(path));
  await closeUnixSocket(server, file);
  assert.not.ok(existsSync(path));
});

test("replaces the file of a server that is gone", async () => {
  const path = join(tempFolder(), "s");
  await makeStale(path);
  assert.not.ok(await canConnect(path));
  const server = createServer();
  const file = await listenOnUnixSocket(server, path);
  assert.ok(await canConnect(path));
  await closeUnixSocket(server, file);
});

test("refuses the path of a live server, which goes on", async () => {
  const path = join(tempFolder(), "s");
  const live = createServer();
  const file = await listenOnUnixSocket(live, path);
  assert.match(await refusal(path, LockedError), /another process listens on/);
  assert.ok(await canConnect(path));
  await closeUnixSocket(live, file);
});

test("refuses what is not a socket and leaves it alone", async () => {
  const folder = tempFolder();
  const path = join(folder, "file");
  writeFileSync(path, "precious");
  assert.match(await refusal(path), /is not a socket/);
  assert.match(await refusal(folder), /is not a socket/);
  symlinkSync(path, join(folder, "link"));
  assert.match(await refusal(join(folder, "link")), /is not a socket/);
  assert.is(statSync(path).size, 8);
});

test("refuses a folder that is not there", async () => {
  assert.match(await refusal(join(tempFolder(), "missing", "s")), /cannot listen on/);
});

test("accepts the longest path and refuses one byte more, counted in bytes", async () => {
  const folder = tempFolder();
  const fits = join(folder, "x".repeat(maxSocketPathBytes - folder.length - 1));
  const server: Server = createServer();
  const file = await listenOnUnixSocket(server, fits);
  assert.ok(existsSync(fits));
  assert.ok(await canConnect(fits));
  await closeUnixSocket(server, file);
  assert.match(await refusal(`${fits}x`), /has 108 bytes; a unix socket's has at most 107/);
  assert.match(await refusal(`${fits.slice(0, -1)}ß`), /108 bytes/);
});

test("leaves alone a file that took the place of ours", async () => {
  const folder = tempFolder();
  const server = createServer();
  const file = await listenOnUnixSocket(server, join(folder, "s"));
  const anothers = join(folder, "another's");
  writeFileSync(anothers, "");
  await closeUnixSocket(server, { path: anothers, inode: file.inode });
  assert.ok(existsSync(anothers));
});

test.run();
