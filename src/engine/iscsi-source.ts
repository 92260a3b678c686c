/** The source over iSCSI: two sessions of one initiator, one for demand reads and one for the sync. */
import { messageOf } from "../lib/errors.ts";
import { ScsiError, Session } from "../iscsi-initiator/mod.ts";
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

  get reconnects(): number {
    return lanes.reduce((total, lane) => total + this.#sessions[lane].statistics.reconnects, 0);
  }

  async read(lane: Lane, offset: number, into: Uint8Array): Promise<void> {
    await this.#persist(lane, (session) => session.read(offset, into));
  }

  async extents(offset: number): Promise<readonly SourceExtent[] | undefined> {
    if (!this.#export.holesReadZero) return undefined;
    try {
      return await this.#persist("sync", (session) => session.lbaStatus(offset, extentsAllocationBytes));
    } catch (error) {
      if (error instanceof ScsiError) return undefined;
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

  /** Only what the target says of the command itself is an answer; anything else is waited out. */
  async #persist<T>(lane: Lane, work: (session: Session) => Promise<T>): Promise<T> {
    for (;;) {
      const session = this.#sessions[lane];
      try {
        await this.#opened.get(session);
        return await work(session);
      } catch (error) {
        if (error instanceof ScsiError || this.#isClosed) {
          throw Object.assign(new Error(messageOf(error), { cause: error }), { code: "EIO" });
        }
        if (session === this.#sessions[lane]) await this.#replaced.promise;
      }
    }
  }

  #openSessions(): Record<Lane, Session> {
    return { demand: this.#openSession("demand", 1), sync: this.#openSession("sync", 2) };
  }

  #openSession(lane: Lane, isidQualifier: number): Session {
    const { address, port, targetName, chap, sizeBytes, serial } = this.#export;
    const session = new Session({
      host: address,
      port,
      targetName,
      initiatorName: this.#options.initiatorName,
      isidQualifier,
      chap: { ...chap.incoming, target: chap.outgoing },
      retryFirst: true,
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
