/** Unix sockets to listen on: private, replaced when stale, refused when live, removed when done. */
import { Buffer } from "node:buffer";
import { lstatSync, unlinkSync } from "node:fs";
import { connect, type Server } from "node:net";
import process from "node:process";
import { errnoCode, LockedError, messageOf, PreconditionError } from "./errors.ts";

/** The longest path of a unix socket on Linux, in bytes (sockaddr_un without its NUL). */
export const maxSocketPathBytes = 107;

/** Throws `PreconditionError` for a path that no unix socket can have. */
export function checkSocketPath(path: string): void {
  // Node would only say EINVAL.
  const lengthBytes = Buffer.byteLength(path);
  if (lengthBytes > maxSocketPathBytes) {
    throw new PreconditionError(
      `the socket path ${path} has ${lengthBytes} bytes; a unix socket's has at most ${maxSocketPathBytes}`,
      { hint: "Use a folder with a shorter path." },
    );
  }
}

/** A socket file that we made; its inode tells it from one that somebody else made in its place. */
export interface UnixSocketFile {
  readonly path: string;
  readonly inode: number;
}

/**
 * Makes `server` listen on `path`, mode 0600. A socket file that nobody listens on is replaced.
 * Throws `LockedError` if the path belongs to a live server, `PreconditionError` if it is too long, is
 * something else than a socket, or cannot be made. Two servers that start on one path at the same moment need
 * a lock of their own.
 */
export async function listenOnUnixSocket(server: Server, path: string): Promise<UnixSocketFile> {
  checkSocketPath(path);
  await removeStale(path);
  await new Promise<void>((resolve, reject) => {
    const refuse = (error: Error) =>
      reject(new PreconditionError(`cannot listen on ${path}: ${messageOf(error)}`, { cause: error }));
    server.once("error", refuse);
    // The file is made within listen(): with this umask there is no moment at which others may connect.
    const umask = process.umask(0o177);
    try {
      server.listen(path, () => {
        server.off("error", refuse);
        resolve();
      });
    } finally {
      process.umask(umask);
    }
  });
  return { path, inode: lstatSync(path).ino };
}

/** Stops listening and removes the file, if it is still ours. Connections are left alone, and waited for. */
export function closeUnixSocket(server: Server, file: UnixSocketFile): Promise<void> {
  if (lstatSync(file.path, { throwIfNoEntry: false })?.ino === file.inode) unlinkSync(file.path);
  return new Promise((resolve) => server.close(() => resolve()));
}

async function removeStale(path: string): Promise<void> {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return;
  if (!stats.isSocket()) {
    throw new PreconditionError(`${path} exists and is not a socket`, {
      hint: "Remove it, or use another path.",
    });
  }
  if (await isListenedOn(path)) throw new LockedError(`another process listens on ${path}`);
  unlinkSync(path);
}

/** Only ECONNREFUSED says that nobody listens; anything else might be a live server. */
function isListenedOn(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", (error) => resolve(errnoCode(error) !== "ECONNREFUSED"));
  });
}
