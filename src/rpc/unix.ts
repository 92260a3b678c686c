/** Conversations over unix sockets: the control sockets of long-running processes. */
import { connect, createServer, type Socket } from "node:net";
import { errnoCode, messageOf, PreconditionError } from "../lib/errors.ts";
import { checkSocketPath, closeUnixSocket, listenOnUnixSocket } from "../lib/unix-socket.ts";
import { type ClientOptions, RpcClient } from "./client.ts";
import { NotListeningError } from "./errors.ts";
import type { LinkOptions } from "./link.ts";
import { type Handlers, serve, type Served } from "./server.ts";

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

export interface ListenOptions extends LinkOptions {
  /** Whoever comes beyond this is disconnected at once. Default 64. */
  readonly maxConversations?: number;
}

/**
 * Serves everybody who connects. The socket has mode 0600. One that a dead process left is replaced; if
 * somebody listens there already, LockedError; if the path is no socket, PreconditionError. (Two processes
 * that start at the very same moment are not told apart here: whoever may start twice holds a lock.)
 */
export async function listenUnix(
  path: string,
  handlers: Handlers,
  options: ListenOptions = {},
): Promise<Listener> {
  const { maxConversations = 64 } = options;
  const conversations = new Set<Served>();
  const server = createServer((socket) => {
    if (conversations.size >= maxConversations) return void socket.destroy();
    const served = serve(socket, handlers, options);
    conversations.add(served);
    void served.closed.then(() => conversations.delete(served));
  });
  const file = await listenOnUnixSocket(server, path);
  // A connection that could not be accepted: there are too many open files. Who asks again is heard later.
  server.on("error", () => {});
  return {
    close: () => {
      const isClosed = closeUnixSocket(server, file);
      for (const served of conversations) served.close();
      return isClosed;
    },
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
