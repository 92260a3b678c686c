/** Conversations over unix sockets: the control sockets of long-running processes. */
import { Buffer } from "node:buffer";
import { chmodSync, lstatSync, unlinkSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { errnoCode, LockedError, messageOf, PreconditionError } from "../lib/errors.ts";
import { type ClientOptions, RpcClient } from "./client.ts";
import { NotListeningError } from "./errors.ts";
import type { LinkOptions } from "./link.ts";
import { type Handlers, serve, type Served } from "./server.ts";

/** Linux: sockaddr_un holds 108 bytes with the final NUL. */
export const maxSocketPathBytes = 107;

/** Throws PreconditionError for a path that no unix socket can have. */
export function checkSocketPath(path: string): void {
  const lengthBytes = Buffer.byteLength(path);
  if (lengthBytes <= maxSocketPathBytes && !path.includes("\0") && path !== "") return;
  throw new PreconditionError(
    `the socket path ${path} is ${lengthBytes} bytes long, where ${maxSocketPathBytes} are possible`,
    { hint: "name a folder with a shorter path in DLSM_RUN_DIR" },
  );
}

/**
 * A conversation with whoever listens on the socket. Rejects with NotListeningError if nobody does,
 * PreconditionError (permission, path too long), or as RpcClient.connect.
 */
export async function connectUnix(path: string, options?: ClientOptions): Promise<RpcClient> {
  checkSocketPath(path);
  let socket: Socket;
  try {
    socket = await openSocket(path);
  } catch (cause) {
    const code = errnoCode(cause);
    if (code === "ENOENT" || code === "ECONNREFUSED") {
      throw new NotListeningError(`nobody listens on ${path}`, { hint: "use dlsm resume", cause });
    }
    throw new PreconditionError(`cannot connect to ${path}: ${messageOf(cause)}`, { cause });
  }
  return await RpcClient.connect(socket, options);
}

export interface Listener {
  /** Stops listening, ends all conversations, removes the socket. */
  close(): Promise<void>;
}

/**
 * Serves everybody who connects. The socket has mode 0600. One that a dead process left is replaced; if
 * somebody listens there already, LockedError; if the path is no socket, PreconditionError. (Two processes
 * that start at the very same moment are not told apart here: whoever may start twice holds a lock.)
 */
export async function listenUnix(path: string, handlers: Handlers, options?: LinkOptions): Promise<Listener> {
  checkSocketPath(path);
  await clearStaleSocket(path);
  const conversations = new Set<Served>();
  const server = createServer((socket) => {
    const served = serve(socket, handlers, options);
    conversations.add(served);
    void served.closed.then(() => conversations.delete(served));
  });
  try {
    await bind(server, path);
  } catch (cause) {
    if (errnoCode(cause) === "EADDRINUSE") throw inUse(path);
    throw new PreconditionError(`cannot listen on ${path}: ${messageOf(cause)}`, {
      hint: "check the permissions of its folder",
      cause,
    });
  }
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const served of conversations) served.close();
      }),
  };
}

function openSocket(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      resolve(socket);
    });
  });
}

async function clearStaleSocket(path: string): Promise<void> {
  const before = lstatSync(path, { throwIfNoEntry: false });
  if (before === undefined) return;
  if (!before.isSocket()) {
    throw new PreconditionError(`${path} is in the way: it is not a socket`, { hint: "move it away" });
  }
  try {
    (await openSocket(path)).destroy();
  } catch (error) {
    if (errnoCode(error) === "ENOENT") return;
    if (errnoCode(error) !== "ECONNREFUSED") throw inUse(path, error);
    // Whoever was quicker than we has put a new socket there: leave it alone.
    const now = lstatSync(path, { throwIfNoEntry: false });
    if (now?.ino === before.ino) unlinkSync(path);
    return;
  }
  throw inUse(path);
}

function inUse(path: string, cause?: unknown): LockedError {
  return new LockedError(`another process listens on ${path}`, {
    hint: "it is at work already: see dlsm status",
    cause,
  });
}

function bind(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    // The socket is made inside listen(): nobody may connect before its mode is right.
    const previousMask = process.umask(0o177);
    try {
      server.listen(path, () => {
        server.off("error", reject);
        chmodSync(path, 0o600);
        resolve();
      });
    } finally {
      process.umask(previousMask);
    }
  });
}
