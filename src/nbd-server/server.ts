/** The NBD server: a unix socket, its clients, and the one device they share. */
import { createServer, type Server, type Socket } from "node:net";
import { Buffer } from "node:buffer";
import { closeUnixSocket, listenOnUnixSocket, type UnixSocketFile } from "../lib/unix-socket.ts";
import { BufferPool } from "../lib/buffer-pool.ts";
import { ServerBudget } from "./budget.ts";
import { Connection } from "./connection.ts";
import { blockStatusCostBytes, maxExtents } from "./costs.ts";
import type { BlockDevice } from "./device.ts";
import { maxStringBytes, partBytes } from "./protocol.ts";

export interface NbdServerOptions {
  /** A name for the export, at most 4096 bytes of UTF-8. The empty name selects the export as well. */
  readonly exportName?: string;
  /** Shown to people by `nbdinfo --list`; at most 4096 bytes of UTF-8. */
  readonly description?: string;
  /** Clients beyond this are disconnected at once. Default 64. */
  readonly maxConnections?: number;
  /** Requests of one client in flight, from their header to when the socket took their reply. Default 128. */
  readonly maxRequestsPerConnection?: number;
  /** Bytes of one client's payloads and replies held at a time. Default 64 MiB. */
  readonly maxBytesPerConnection?: number;
  /**
   * The same of all clients together. Default 256 MiB. Half of it is reserved in equal parts for each of
   * `maxConnections`, at least 1 MiB for each. Requests for which there is no room are executed in parts.
   */
  readonly maxBytes?: number;
  /** A client that has not finished the handshake by then is dropped. Default 30 s. */
  readonly handshakeTimeoutMs?: number;
  /** Called with the new `connectionCount` whenever it changes. */
  onConnectionsChange?(count: number): void;
  /**
   * For a log: a client broke the protocol (`NbdProtocolError`; dropped), or the device its contract; or
   * clients are refused because too many are connected: told of the first, and not again until half of the room
   * was free.
   */
  onError?(error: Error): void;
}

/** Of payload buffers that wait to be used again. */
const pooledBytes = 8 * 1024 * 1024;

/** How often it is looked whether a client is gone whose requests are not read at the moment. */
const hangUpCheckMs = 1000;

interface Listening {
  readonly server: Server;
  readonly file: UnixSocketFile;
  readonly watch: ReturnType<typeof setInterval>;
}

/** A client in the transmission phase. */
export interface NbdClient {
  /** Counts up from 1 in the order of arrival. */
  readonly id: number;
  readonly connectedAt: Date;
  readonly structuredReplies: boolean;
  readonly metaContexts: readonly string[];
  readonly requestsInFlight: number;
  /** Bytes of payloads and replies it makes the server hold. */
  readonly bytesInFlight: number;
}

/**
 * Serves `device` on a unix socket by the NBD protocol (fixed newstyle) to several clients at once.
 *
 *     const server = new NbdServer(device, { description: "vm1's disk" });
 *     await server.listen("/run/dlsm/x/nbd.sock");   // nbd+unix:///?socket=/run/dlsm/x/nbd.sock
 *     await server.close();
 *
 * It never answers NBD_ESHUTDOWN: clients that reconnect take a dropped socket for a pause, that answer for
 * an I/O error.
 */
export class NbdServer {
  readonly #device: BlockDevice;
  readonly #options: NbdServerOptions;
  readonly #budget: ServerBudget;
  readonly #pool = new BufferPool(pooledBytes);
  readonly #connections = new Map<number, { readonly connection: Connection; readonly connectedAt: Date }>();
  #lastId = 0;
  #lastCount = 0;
  /** That clients are refused is told once, however many come and go, until half of the room was free. */
  #isRefusalTold = false;
  #listening: Listening | undefined;

  constructor(device: BlockDevice, options: NbdServerOptions = {}) {
    for (const text of [options.exportName, options.description]) {
      if (text !== undefined && Buffer.byteLength(text) > maxStringBytes) {
        throw new RangeError(`an export's name and description have at most ${maxStringBytes} bytes each`);
      }
    }
    this.#device = device;
    this.#options = options;
    this.#budget = new ServerBudget({
      totalBytes: options.maxBytes ?? 256 * 1024 * 1024,
      maxConnections: options.maxConnections ?? 64,
      maxBytes: options.maxBytesPerConnection ?? 64 * 1024 * 1024,
      maxRequests: options.maxRequestsPerConnection ?? 128,
    });
    const neededBytes = Math.max(partBytes, blockStatusCostBytes(device.metaContexts.length, maxExtents));
    if (this.#budget.reserveBytes < neededBytes || device.preferredBlockBytes > partBytes) {
      throw new RangeError(
        `each client needs a reserve of ${neededBytes} bytes, for blocks of 1 MiB at most`,
      );
    }
  }

  /** What clients make the server hold at most at this moment: never more than `maxBytes`. */
  get committedBytes(): number {
    return this.#budget.committedBytes;
  }

  /** Clients in the transmission phase. */
  get connectionCount(): number {
    return this.#inTransmission().length;
  }

  /** Clients in the transmission phase. (Their process ids cannot be had from Node.) */
  clients(): NbdClient[] {
    return this.#inTransmission().map(([id, { connection, connectedAt }]) => ({
      id,
      connectedAt,
      structuredReplies: connection.session.structuredReplies,
      metaContexts: connection.session.metaContexts.map(({ name }) => name),
      requestsInFlight: connection.requestsInFlight,
      bytesInFlight: connection.bytesInFlight,
    }));
  }

  /**
   * Listens on `socketPath`, mode 0600. The file of a server that is gone is replaced.
   * Throws `LockedError` if a live server listens there, `PreconditionError` if the path is too long, is
   * something else than a socket, or cannot be made.
   */
  async listen(socketPath: string): Promise<void> {
    if (this.#listening !== undefined) throw new Error("listen: already listening");
    const server = createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket));
    const file = await listenOnUnixSocket(server, socketPath);
    server.on("error", (error) => this.#options.onError?.(error));
    const watch = setInterval(() => this.#dropHungUp(), hangUpCheckMs);
    watch.unref();
    this.#listening = { server, file, watch };
  }

  /** Disconnects everybody without a reply; who wants to can connect again. */
  dropAll(): void {
    for (const { connection } of this.#connections.values()) connection.drop();
    this.#reportCount();
  }

  /**
   * Stops listening, removes the socket file and disconnects everybody without a reply. What the device has
   * been asked to do by then goes on and is not waited for.
   */
  async close(): Promise<void> {
    const listening = this.#listening;
    this.#listening = undefined;
    clearInterval(listening?.watch);
    const closed = listening === undefined ? undefined : closeUnixSocket(listening.server, listening.file);
    this.dropAll();
    await closed;
  }

  #dropHungUp(): void {
    for (const { connection } of this.#connections.values()) connection.dropIfHungUp();
  }

  #inTransmission() {
    return [...this.#connections].filter(([, { connection }]) => connection.isInTransmission);
  }

  #accept(socket: Socket): void {
    const { exportName = "", description = "", handshakeTimeoutMs = 30_000 } = this.#options;
    if (this.#budget.isHalfFree) this.#isRefusalTold = false;
    const budget = this.#budget.join();
    if (budget === undefined) {
      socket.destroy();
      if (!this.#isRefusalTold) {
        this.#options.onError?.(new Error("clients are refused: no more may be connected"));
      }
      this.#isRefusalTold = true;
      return;
    }
    const id = ++this.#lastId;
    const { sizeBytes, preferredBlockBytes, metaContexts } = this.#device;
    const connection = new Connection(
      socket,
      this.#device,
      { name: exportName, description, sizeBytes, preferredBlockBytes, metaContexts },
      { budget, pool: this.#pool, handshakeTimeoutMs },
      {
        onTransmission: () => this.#reportCount(),
        onClosed: () => {
          this.#connections.delete(id);
          this.#reportCount();
        },
        onError: (error) => this.#options.onError?.(error),
      },
    );
    this.#connections.set(id, { connection, connectedAt: new Date() });
  }

  #reportCount(): void {
    const count = this.connectionCount;
    if (count === this.#lastCount) return;
    this.#lastCount = count;
    this.#options.onConnectionsChange?.(count);
  }
}
