/**
 * One session with one LUN, kept up: connects, identifies the disk, issues commands, and when the connection
 * is lost waits, connects again and issues again what was in flight.
 *
 * | state      | reads          | left when                                                       |
 * |------------|----------------|-----------------------------------------------------------------|
 * | connecting | wait           | the disk is identified (ready), or something failed (waiting)   |
 * | ready      | are sent       | the connection is lost (waiting)                                |
 * | waiting    | wait           | the back-off is over (connecting)                               |
 * | closed     | are refused    | never; it is also the state before `open`                       |
 *
 * Any state goes to closed by `close`, by another disk behind the LUN, and by a failed first login unless
 * `retryFirst` is set. A later refusal to log in is waited out, because a target that is being set up again
 * refuses too.
 */
import { type Address, Connection, type ConnectionEnd } from "./connection.ts";
import { Dispatcher } from "./dispatcher.ts";
import { IdentityError, IscsiError, LoginError, type Place, SessionClosedError } from "./errors.ts";
import { differenceOf, identify } from "./identify.ts";
import {
  type Identity,
  type InitiatorOptions,
  type SessionState,
  type Settings,
  settingsOf,
} from "./options.ts";
import { ReadRequest } from "./read-request.ts";
import { backoffMs } from "./retry.ts";
import * as scsi from "./scsi.ts";
import type { Statistics } from "./statistics.ts";
import { Task } from "./task.ts";

/** Redirects followed within one login. */
const maxRedirects = 4;
/** The first question for LUNs, and the last: all 16384 single-level ones. */
const someLunsBytes = 4096;
const allLunsBytes = 8 + 16384 * 8;

export class Session {
  readonly #settings: Settings;
  readonly #place: Place;
  readonly #dispatcher: Dispatcher;
  #state: SessionState = "closed";
  #identity: Identity | undefined;
  #connection: Connection | undefined;

  /** The promise of `open`, while it is pending. */
  #opening: { resolve(): void; reject(error: Error): void } | undefined;
  #wasOpened = false;
  #closing: { readonly done: Promise<void>; finish(): void } | undefined;
  /** Why the session is closed for good. */
  #endError: IscsiError | undefined;

  /** Connections lost in a row, for the back-off. */
  #failures = 0;
  #redirects = 0;
  #loginDeadlineMs = 0;
  #readySinceMs: number | undefined;
  #cancelWait: () => void = () => {};
  #logins = 0;
  #bytesRead = 0;

  /** Throws `RangeError` on options that cannot be. Nothing is connected yet. */
  constructor(options: InitiatorOptions) {
    this.#settings = settingsOf(options);
    const { targetName, host, port } = this.#settings;
    this.#place = { targetName, host, port };
    this.#dispatcher = new Dispatcher(this.#settings);
  }

  /**
   * Connects, logs in and identifies the disk. Rejects with `TransportError` (unreachable), `LoginError`
   * (refused), `ScsiError` or `ProtocolError` (no usable disk), `IdentityError`; with `retryFirst` only with
   * the last, or with `SessionClosedError`. Call it once.
   */
  open(): Promise<void> {
    if (this.#wasOpened) return Promise.reject(new Error("the session was opened before"));
    this.#wasOpened = true;
    return new Promise((resolve, reject) => {
      this.#opening = { resolve, reject };
      this.#beginAttempt();
    });
  }

  get state(): SessionState {
    return this.#state;
  }

  /** Throws before the first `open` has succeeded. */
  get identity(): Identity {
    if (this.#identity === undefined) throw new Error("the session is not open yet");
    return this.#identity;
  }

  get statistics(): Readonly<Statistics> {
    return {
      bytesRead: this.#bytesRead,
      ...this.#dispatcher.counts,
      reconnects: Math.max(0, this.#logins - 1),
      inFlight: this.#connection?.inFlight ?? 0,
      queued: this.#dispatcher.queued,
    };
  }

  /**
   * Fills `into` with what is at `offsetBytes`; both offset and length are whole blocks (`RangeError`
   * otherwise). Resolves only when every command ended with GOOD status; until then `into` may hold anything,
   * after a rejection too, but it is not written to any more. Waits while the target cannot be reached,
   * unless `signal` aborts (then rejects with its reason). Rejects with `ScsiError` and the other errors of
   * this module.
   */
  read(
    offsetBytes: number,
    into: Uint8Array,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      const identity = this.#checkUse(offsetBytes, into.length);
      const { signal } = options;
      if (signal?.aborted) return reject(signal.reason);
      if (into.length === 0) return resolve();
      const onAbort = () => request.cancel(signal?.reason);
      const request = new ReadRequest(this.#dispatcher, identity, offsetBytes, into, (error) => {
        signal?.removeEventListener("abort", onAbort);
        if (error !== undefined) return reject(error);
        this.#bytesRead += into.length;
        resolve();
      });
      signal?.addEventListener("abort", onAbort, { once: true });
      request.start();
    });
  }

  /**
   * Which blocks from `offsetBytes` on have data of their own (GET LBA STATUS), as far as an answer of
   * `allocationBytes` tells: extents ascend without overlap, but may leave gaps and may begin before or
   * after `offsetBytes`; take gaps as mapped. An empty list says nothing. Targets without the command reject
   * it with `ScsiError`.
   */
  async lbaStatus(offsetBytes: number, allocationBytes = 1 << 20): Promise<scsi.LbaExtent[]> {
    const { blockBytes, sizeBytes } = this.#checkUse(offsetBytes, this.identity.blockBytes);
    if (!Number.isInteger(allocationBytes) || allocationBytes < 24 || allocationBytes > 1 << 24) {
      throw new RangeError(`an allocation of ${allocationBytes} bytes: 24 bytes to 16 MiB are possible`);
    }
    const data = await this.#execute(scsi.getLbaStatus(offsetBytes / blockBytes, allocationBytes));
    return this.#located(() => scsi.parseLbaStatus(data, blockBytes, sizeBytes));
  }

  async inquiry(): Promise<scsi.InquiryData> {
    this.#checkUse(0, 0);
    const data = await this.#execute(scsi.inquiry());
    return this.#located(() => scsi.parseInquiry(data));
  }

  /** The names of the logical unit and its port (VPD page 83h). */
  async designators(): Promise<scsi.Designator[]> {
    this.#checkUse(0, 0);
    const data = await this.#execute(scsi.inquiry(0x83));
    return this.#located(() => scsi.parseDesignators(data));
  }

  /** The LUNs that the target shows to this initiator, ascending as sent. */
  async reportLuns(): Promise<number[]> {
    this.#checkUse(0, 0);
    const short = await this.#execute(scsi.reportLuns(someLunsBytes));
    const { luns, neededBytes } = this.#located(() => scsi.parseLuns(short));
    if (neededBytes <= someLunsBytes) return luns;
    const all = await this.#execute(scsi.reportLuns(Math.min(neededBytes, allLunsBytes)));
    return this.#located(() => scsi.parseLuns(all)).luns;
  }

  async testUnitReady(): Promise<void> {
    this.#checkUse(0, 0);
    await this.#execute(scsi.testUnitReady());
  }

  /** Rejects what is pending with `SessionClosedError`, logs out if it can, and closes. Can be repeated. */
  close(): Promise<void> {
    if (this.#closing !== undefined) return this.#closing.done;
    if (this.#state === "closed" && this.#connection === undefined) return Promise.resolve();
    let finish = () => {};
    const done = new Promise<void>((resolve) => finish = resolve);
    this.#closing = { done, finish };
    if (this.#endError === undefined) {
      this.#end(new SessionClosedError("the session was closed").at(this.#place));
    }
    if (this.#connection === undefined) finish();
    return done;
  }

  /** Common to all requests; throws what their promise rejects with. */
  #checkUse(offsetBytes: number, lengthBytes: number): Identity {
    if (this.#endError !== undefined) throw this.#endError;
    const { blockBytes, sizeBytes } = this.identity;
    this.#located(() => this.#dispatcher.checkRoom());
    const isAligned = offsetBytes % blockBytes === 0 && lengthBytes % blockBytes === 0;
    if (!isAligned || !(offsetBytes >= 0) || offsetBytes + lengthBytes > sizeBytes) {
      throw new RangeError(
        `bytes ${offsetBytes} to ${offsetBytes + lengthBytes} are not whole blocks of ${blockBytes} bytes ` +
          `within the ${sizeBytes} bytes of the disk`,
      );
    }
    return this.identity;
  }

  #execute(command: scsi.ScsiCommand, isSetup = false): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const into = new Uint8Array(command.allocationBytes);
      const task: Task = new Task(command, into, false, (error) => {
        if (error === undefined) resolve(into.subarray(0, task.receivedBytes));
        else reject(error);
      });
      if (isSetup) this.#dispatcher.submitSetup(task);
      else this.#dispatcher.submit(task);
    });
  }

  /** Adds the place to what a pure part throws. */
  #located<T>(body: () => T): T {
    try {
      return body();
    } catch (error) {
      throw error instanceof IscsiError ? error.at(this.#place) : error;
    }
  }

  // The connection, its loss and the next one.

  #enter(state: SessionState, error?: Error): void {
    this.#state = state;
    this.#settings.onStateChange?.(state, error);
  }

  #beginAttempt(): void {
    const { clock, loginTimeoutMs, host, port } = this.#settings;
    this.#redirects = 0;
    this.#loginDeadlineMs = clock.nowMs() + loginTimeoutMs;
    this.#enter("connecting");
    if (this.#endError === undefined) this.#connect({ host, port });
  }

  #connect(address: Address): void {
    const connection: Connection = new Connection(this.#settings, address, this.#loginDeadlineMs, {
      onReady: () => void this.#onLoggedIn(connection),
      onTaskDone: (task, error) => this.#dispatcher.onTaskDone(task, error),
      onRoom: () => this.#dispatcher.pump(),
      onClosed: (end) => this.#onConnectionClosed(end),
    });
    this.#connection = connection;
    this.#dispatcher.attach(connection);
  }

  async #onLoggedIn(connection: Connection): Promise<void> {
    let identity: Identity;
    try {
      identity = await identify((command) => this.#execute(command, true));
    } catch (error) {
      if (!(error instanceof IscsiError)) throw error;
      // Of no effect if the connection's own end is the reason.
      return connection.destroy(error);
    }
    if (this.#connection !== connection || this.#closing !== undefined) return;
    const refusal = this.#refusalOf(identity);
    if (refusal !== undefined) return this.#end(refusal);
    this.#identity ??= identity;
    this.#logins++;
    this.#readySinceMs = this.#settings.clock.nowMs();
    this.#enter("ready");
    this.#dispatcher.begin();
    this.#opening?.resolve();
    this.#opening = undefined;
  }

  #refusalOf(identity: Identity): IdentityError | undefined {
    const difference = this.#identity && differenceOf(this.#identity, identity);
    if (difference !== undefined) return new IdentityError(difference).at(this.#place);
    try {
      this.#settings.verifyIdentity?.(identity);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      return new IdentityError(`the disk was refused: ${reason}`, error).at(this.#place);
    }
    return undefined;
  }

  #onConnectionClosed(end: ConnectionEnd): void {
    this.#connection = undefined;
    this.#dispatcher.detach(end.unfinished, end.error);
    if (this.#closing !== undefined) return this.#closing.finish();
    if (this.#endError !== undefined) return;
    if (end.redirect !== undefined && this.#redirects++ < maxRedirects) return this.#connect(end.redirect);
    const error = end.redirect === undefined
      ? end.error
      : new LoginError("redirect", `more than ${maxRedirects} redirects in a row`, 1).at(this.#place);
    if (this.#opening !== undefined && !this.#settings.retryFirst) return this.#end(error);
    this.#wait(error, end.waitMs);
  }

  #wait(error: IscsiError, askedMs: number): void {
    const { clock, backoffMinMs, backoffMaxMs, random } = this.#settings;
    // Only a connection that held for a while counts as recovery: one that breaks right after each login
    // must not be opened in a tight loop.
    const heldMs = this.#readySinceMs === undefined ? 0 : clock.nowMs() - this.#readySinceMs;
    if (heldMs >= backoffMaxMs) this.#failures = 0;
    this.#readySinceMs = undefined;
    const ownMs = backoffMs(this.#failures++, backoffMinMs, backoffMaxMs, random);
    const delayMs = Math.max(ownMs, Math.min(askedMs, backoffMaxMs));
    this.#cancelWait = clock.after(delayMs, () => this.#beginAttempt());
    this.#enter("waiting", error);
  }

  /** Closes for good: everything that waits ends with `error`. A connection that is up stays for a logout. */
  #end(error: IscsiError): void {
    this.#endError = error;
    this.#cancelWait();
    this.#opening?.reject(error);
    this.#opening = undefined;
    this.#dispatcher.endAll(error);
    this.#connection?.logout(error.message);
    this.#enter("closed", this.#closing === undefined ? error : undefined);
  }
}
