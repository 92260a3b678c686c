/** The source over iSCSI: two sessions of one initiator, one for demand reads and one for the sync. */
import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "../lib/errors.ts";
import { IscsiError, QueueFullError, Session } from "../iscsi-initiator/mod.ts";
import { connectThrough } from "../ssh/mod.ts";
import type { SourceExport } from "./config.ts";
import type { Lane, Source, SourceExtent } from "./source.ts";

export interface IscsiSourceOptions {
  readonly initiatorName: string;
  /** Told of connections lost and found, for the log. */
  onChange(text: string): void;
}

const lanes = ["demand", "sync"] as const;
/** Room for 65,536 extents: the target walks all extents at each call, so few calls are better. */
const extentsAllocationBytes = 1024 * 1024;
/** Until a read for which the session's queue had no room is tried again. */
const queueFullMs = 50;

export class IscsiSource implements Source {
  readonly blockBytes: number;
  readonly #options: IscsiSourceOptions;
  #export: SourceExport;
  #sessions: Record<Lane, Session>;
  /** Each session's first login: before it, a session takes no commands. */
  readonly #opened = new WeakMap<Session, Promise<void>>();
  #replaced = Promise.withResolvers<void>();
  #lastError: string | undefined;
  #isClosed = false;

  constructor(source: SourceExport, options: IscsiSourceOptions) {
    this.blockBytes = source.blockBytes;
    this.#options = options;
    this.#export = source;
    this.#sessions = this.#openSessions();
  }

  /** Whether both sessions are logged in. */
  get isConnected(): boolean {
    return lanes.every((lane) => this.#sessions[lane].state === "ready");
  }

  /** Why the source cannot be reached; undefined while it can. */
  get lastError(): string | undefined {
    return this.isConnected ? undefined : this.#lastError;
  }

  /** Why a session was closed for good: nothing but a mended export helps. Undefined if none was. */
  get refusal(): string | undefined {
    const isRefused = !this.#isClosed && lanes.some((lane) => this.#sessions[lane].state === "closed");
    return isRefused ? this.#lastError : undefined;
  }

  async read(lane: Lane, offset: number, into: Uint8Array): Promise<void> {
    await this.#persist(lane, (session) => session.read(offset, into));
  }

  async extents(offset: number): Promise<readonly SourceExtent[] | undefined> {
    if (!this.#export.holesReadZero) return undefined;
    try {
      return await this.#persist("sync", (session) => session.lbaStatus(offset, extentsAllocationBytes));
    } catch (error) {
      // What is not told counts as mapped.
      if (error instanceof Error && error.cause instanceof IscsiError) return undefined;
      throw error;
    }
  }

  /** The export moved (another port or secret): sessions are opened anew, and waiting reads go there. */
  async replace(source: SourceExport): Promise<void> {
    const old = this.#sessions;
    this.#export = source;
    this.#sessions = this.#openSessions();
    this.#replaced.resolve();
    this.#replaced = Promise.withResolvers();
    await Promise.allSettled(lanes.map((lane) => old[lane].close()));
  }

  /** Logs out; reads that wait fail. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#replaced.resolve();
    await Promise.allSettled(lanes.map((lane) => this.#sessions[lane].close()));
  }

  /**
   * A session that was closed for good (another disk is behind the target) is waited out until the export is
   * looked after; a session waits for its connection by itself. Every other failure is the command's.
   */
  async #persist<T>(lane: Lane, work: (session: Session) => Promise<T>): Promise<T> {
    for (;;) {
      const session = this.#sessions[lane];
      try {
        await this.#opened.get(session);
        return await work(session);
      } catch (error) {
        const isOld = session !== this.#sessions[lane];
        if (error instanceof QueueFullError) await sleep(queueFullMs);
        else if (this.#isClosed || (!isOld && session.state !== "closed")) {
          throw Object.assign(new Error(messageOf(error), { cause: error }), { code: "EIO" });
        } else if (!isOld) await this.#replaced.promise;
      }
    }
  }

  #openSessions(): Record<Lane, Session> {
    return { demand: this.#openSession("demand", 1), sync: this.#openSession("sync", 2) };
  }

  #openSession(lane: Lane, isidQualifier: number): Session {
    const { address, port, targetName, chap, sizeBytes, serial, tunnel } = this.#export;
    const session = new Session({
      host: address,
      port,
      targetName,
      initiatorName: this.#options.initiatorName,
      isidQualifier,
      chap: { ...chap.incoming, target: chap.outgoing },
      retryFirst: true,
      ...(tunnel === null ? {} : { connect: connectThrough(tunnel) }),
      verifyIdentity: (identity) => {
        if (identity.sizeBytes !== sizeBytes || identity.serial !== serial) {
          throw new Error(
            `the target shows another disk: ${identity.sizeBytes} bytes, serial ${identity.serial}, ` +
              `not ${sizeBytes} bytes, serial ${serial}`,
          );
        }
      },
      onStateChange: (state, error) => {
        if (error !== undefined) this.#lastError = error.message;
        this.#options.onChange(`source, ${lane} session: ${state}${error ? ` (${error.message})` : ""}`);
      },
    });
    const opened = session.open();
    opened.catch((error) => this.#lastError = messageOf(error));
    this.#opened.set(session, opened);
    return session;
  }
}
