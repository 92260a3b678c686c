/**
 * One TCP connection and the session on it (RFC 7143 §6, §8, ErrorRecoveryLevel 0): login, commands, pings,
 * logout. Whatever goes wrong ends the connection; the owner opens another and sends again what was lost.
 *
 * | state      | meaning                                     | ends with                         |
 * |------------|---------------------------------------------|-----------------------------------|
 * | connecting | TCP is being connected                      | login, or closed at the deadline  |
 * | login      | keys are exchanged                          | full, or closed                   |
 * | full       | full-feature phase: tasks may be issued     | leaving, or closed                |
 * | leaving    | a Logout was sent; what still comes counts  | closed                            |
 * | closed     | the owner was told; nothing happens anymore |                                   |
 */
import {
  IscsiError,
  type Place,
  portalText,
  ProtocolError,
  TaskTimeoutError,
  TransportError,
} from "./errors.ts";
import { Keepalive } from "./keepalive.ts";
import { LoginNegotiation, type LoginRequest, loginSegmentBytes } from "./login.ts";
import type { OperationalTerms } from "./login-keys.ts";
import { isidOf, type Settings } from "./options.ts";
import { buildLoginRequest, buildLogout, buildNopOut, buildScsiCommand, readLoginResponse } from "./pdu.ts";
import { Header, headerBytes, noTag, opcodes, statusFlag } from "./pdu.ts";
import { lunField } from "./scsi.ts";
import { senseDataOf, type Task } from "./task.ts";
import { Wire } from "./wire.ts";

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface ConnectionEnd {
  readonly error: IscsiError;
  /** Tasks without an outcome, in the order in which they were issued, without the abandoned ones. */
  readonly unfinished: Task[];
  /** What the target asked to wait before the next login. */
  readonly waitMs: number;
  /** The login was sent on to another portal. */
  readonly redirect?: Address;
}

export interface ConnectionOwner {
  /** The full-feature phase began. */
  onReady(): void;
  /** A status came: no error means GOOD, and all data there. The task is not the connection's any more. */
  onTaskDone(task: Task, error: IscsiError | undefined): void;
  /** There may be room for tasks. */
  onRoom(): void;
  /** Called once and last. */
  onClosed(end: ConnectionEnd): void;
}

const logoutTimeoutMs = 3000;
/** How often a command may be rejected before its error counts. */
const maxRejects = 3;
const noLun = new Uint8Array(8);
const noData = new Uint8Array();

/** Asynchronous Message events (RFC 7143 §11.9.1). */
const asyncEvents = { scsi: 0, logoutRequested: 1, connectionDropped: 2, sessionDropped: 3, renegotiate: 4 };

export class Connection {
  readonly #settings: Settings;
  readonly #owner: ConnectionOwner;
  readonly #place: Place;
  readonly #isid: Uint8Array;
  readonly #lun: Uint8Array;
  readonly #wire: Wire;
  readonly #login: LoginNegotiation;

  #state: "connecting" | "login" | "full" | "leaving" | "closed" = "connecting";
  /** In the order of issue, so the first has the earliest deadline. */
  readonly #tasks = new Map<number, Task>();
  #nextTag = 1;
  /** The task whose Data-In is arriving. */
  #receiving: Task | undefined;

  #cancelTick: () => void = () => {};
  /** Of the login, then of the logout. */
  #deadlineMs: number;
  readonly #keepalive: Keepalive;
  /** The target said something. */
  #hasHeard = false;
  /** When a command was last under way or possible. */
  #usableMs = 0;
  /** Why the logout was sent, and what the target asked to wait after it. */
  #leaveReason = "logged out";
  #waitMs = 0;

  /** Starts connecting to `address`; the login must be done by `deadlineMs`. */
  constructor(settings: Settings, address: Address, deadlineMs: number, owner: ConnectionOwner) {
    this.#settings = settings;
    this.#owner = owner;
    this.#place = { targetName: settings.targetName, ...address };
    this.#isid = isidOf(settings);
    this.#lun = lunField(settings.lun);
    this.#deadlineMs = deadlineMs;
    this.#keepalive = new Keepalive(settings.nopIntervalMs, settings.nopTimeoutMs, settings.clock.nowMs());
    this.#login = new LoginNegotiation(settings);
    this.#wire = new Wire(settings.connect, address, settings.initialCmdSN, loginSegmentBytes, {
      onConnect: () => this.#onConnect(),
      onBytes: () => {
        this.#hasHeard = true;
        this.#keepalive.onBytes(settings.clock.nowMs());
      },
      onHeader: (header) => this.#onHeader(header),
      onPdu: (header, data) => this.#onPdu(header, data),
      onChunkEnd: () => owner.onRoom(),
      onFailure: (error) => this.destroy(error),
      onClose: (error) => this.#onTransportClose(error),
    });
    this.#armTick();
  }

  /** Whether a task may be issued now: room in the target's window, and fewer than `maxTasks` in flight. */
  get canIssue(): boolean {
    return this.#state === "full" && this.#wire.window.isOpen && this.#tasks.size < this.#settings.maxTasks;
  }

  get inFlight(): number {
    return this.#tasks.size;
  }

  /** Sends the command of `task`. Only while `canIssue`. */
  issue(task: Task): void {
    const tag = this.#takeTag();
    const numbers = this.#wire.takeNumbers();
    const { cdb, allocationBytes } = task.command;
    task.restart();
    task.deadlineMs = this.#settings.clock.nowMs() + this.#settings.taskTimeoutMs;
    this.#tasks.set(tag, task);
    this.#wire.send(buildScsiCommand(tag, this.#lun, cdb, allocationBytes, numbers, this.#wire.digests));
  }

  /** Stores nothing for `task` from now on. Its tag stays taken until the target has answered. */
  abandon(task: Task): void {
    task.isAbandoned = true;
    if (this.#receiving === task) this.#wire.skipData();
  }

  abandonAll(): Task[] {
    const live = this.#liveTasks();
    for (const task of live) this.abandon(task);
    return live;
  }

  /** Ends the session in order: Logout, its answer, close. At once if there was no login yet. */
  logout(reason: string): void {
    if (this.#state === "leaving") return;
    if (this.#state !== "full") return this.destroy(new TransportError(reason));
    this.#state = "leaving";
    this.#leaveReason = reason;
    this.#deadlineMs = this.#settings.clock.nowMs() + logoutTimeoutMs;
    this.#wire.send(buildLogout(this.#takeTag(), this.#wire.numbers, this.#wire.digests));
  }

  /** Closes now and tells the owner why. */
  destroy(error: IscsiError, redirect?: Address): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#cancelTick();
    this.#wire.close();
    const unfinished = this.#liveTasks();
    this.#tasks.clear();
    this.#owner.onClosed({ error: error.at(this.#place), unfinished, waitMs: this.#waitMs, redirect });
  }

  #liveTasks(): Task[] {
    return [...this.#tasks.values()].filter((task) => !task.isAbandoned);
  }

  #takeTag(): number {
    const tag = this.#nextTag;
    this.#nextTag = tag === noTag - 1 ? 1 : tag + 1;
    return this.#tasks.has(tag) ? this.#takeTag() : tag;
  }

  #onConnect(): void {
    if (this.#state !== "connecting") return;
    this.#state = "login";
    this.#sendLogin(this.#login.start());
  }

  #onTransportClose(error: Error | undefined): void {
    if (error === undefined) return this.destroy(new TransportError("the target closed the connection"));
    const portal = portalText(this.#place.host, this.#place.port);
    const what = this.#state === "connecting"
      ? `no connection to ${portal}`
      : this.#hasHeard
      ? "connection lost"
      : `no answer from ${portal}`;
    this.destroy(new TransportError(`${what}: ${error.message}`, error));
  }

  // Login.

  #sendLogin(request: LoginRequest): void {
    this.#wire.send(buildLoginRequest(request, this.#isid, this.#wire.numbers));
  }

  #onLogin(header: Header, text: Uint8Array): void {
    if (header.opcode !== opcodes.loginResponse) {
      throw new ProtocolError(`the target answered the login with opcode ${header.opcode}`);
    }
    const response = readLoginResponse(header, text);
    if (response.statusClass === 0) {
      this.#wire.takeStatSN(header);
      this.#wire.window.update(header.expCmdSN, header.maxCmdSN);
    }
    const step = this.#login.receive(response);
    if (step.kind === "send") this.#sendLogin(step.request);
    else if (step.kind === "done") this.#beginFullFeature(step.terms);
    else {
      const { host, port } = step;
      this.destroy(new TransportError(`the target moved to ${portalText(host, port)}`), { host, port });
    }
  }

  #beginFullFeature(terms: OperationalTerms): void {
    this.#state = "full";
    this.#usableMs = this.#settings.clock.nowMs();
    const digests = { header: terms.headerDigest, data: terms.dataDigest };
    this.#wire.configure(digests, this.#settings.maxRecvDataSegmentLength);
    this.#owner.onReady();
  }

  // PDUs of the target.

  #onHeader(header: Header): Uint8Array | "skip" | undefined {
    if (header.opcode !== opcodes.dataIn) return undefined;
    const task = this.#taskOf(header);
    this.#receiving = task;
    return task.place(header);
  }

  #onPdu(header: Header, data: Uint8Array): void {
    this.#receiving = undefined;
    if (this.#state === "login") return this.#onLogin(header, data);
    switch (header.opcode) {
      case opcodes.dataIn:
        if ((header.flags & statusFlag) !== 0) this.#onStatus(header, noData);
        break;
      case opcodes.scsiResponse:
        this.#onStatus(header, senseDataOf(data));
        break;
      case opcodes.nopIn:
        this.#onNopIn(header);
        break;
      case opcodes.logoutResponse:
        return this.#onLogoutResponse(header);
      case opcodes.asyncMessage:
        this.#wire.takeStatSN(header);
        this.#onAsyncMessage(header);
        break;
      case opcodes.reject:
        return this.#onReject(header, data);
      default:
        throw new ProtocolError(`the target sent a PDU with opcode 0x${header.opcode.toString(16)}`);
    }
    this.#wire.window.update(header.expCmdSN, header.maxCmdSN);
  }

  #taskOf(header: Header): Task {
    const task = this.#tasks.get(header.tag);
    if (task === undefined) throw new ProtocolError("the target answered a command that it was not given");
    return task;
  }

  #onStatus(header: Header, senseData: Uint8Array): void {
    const task = this.#taskOf(header);
    this.#wire.takeStatSN(header);
    this.#tasks.delete(header.tag);
    if (!task.isAbandoned) this.#finish(task, task.outcome(header, senseData));
  }

  /** Hands the task back; nothing is stored for it any more. */
  #finish(task: Task, error: IscsiError | undefined): void {
    if (this.#receiving === task) this.#wire.skipData();
    this.#owner.onTaskDone(task, error?.at(this.#place));
  }

  /** Our ping's answer, or the target's ping, which is answered at once (RFC 7143 §11.19). */
  #onNopIn(header: Header): void {
    if (header.tag !== noTag) {
      if (!this.#keepalive.onAnswer(header.tag)) {
        throw new ProtocolError("the target answered a ping that was not sent");
      }
      this.#wire.takeStatSN(header);
    }
    if (header.targetTag === noTag || this.#state !== "full") return;
    this.#wire.send(buildNopOut(noTag, header.targetTag, header.lun, this.#wire.numbers, this.#wire.digests));
  }

  #onLogoutResponse(header: Header): void {
    if (this.#state !== "leaving") throw new ProtocolError("the target answered a logout that was not sent");
    this.#wire.takeStatSN(header);
    this.destroy(new TransportError(this.#leaveReason));
  }

  #onAsyncMessage(header: Header): void {
    const waitMs = header.parameter2 * 1000;
    switch (header.asyncEvent) {
      case asyncEvents.logoutRequested:
      case asyncEvents.renegotiate:
        return this.logout("the target asked for a logout");
      case asyncEvents.connectionDropped:
      case asyncEvents.sessionDropped:
        this.#waitMs = waitMs;
        throw new TransportError("the target announced that it drops the connection");
      default:
        // SCSI events come again as unit attentions; vendors' events mean nothing here.
        return;
    }
  }

  /** Whatever was rejected: numbers of the two sides may differ from now on (RFC 7143 §11.17). */
  #onReject(header: Header, rejected: Uint8Array): void {
    const tag = rejected.length >= headerBytes ? new Header(rejected).tag : noTag;
    const task = this.#tasks.get(tag);
    const error = new ProtocolError(
      `the target rejected ${task?.command.name ?? "a request"} (reason 0x${header.response.toString(16)})`,
    );
    if (task !== undefined && !task.isAbandoned && ++task.rejects > maxRejects) {
      this.#tasks.delete(tag);
      this.#finish(task, error);
    }
    throw error;
  }

  // Time.

  #armTick(): void {
    const { loginTimeoutMs, taskTimeoutMs, nopIntervalMs, nopTimeoutMs, clock } = this.#settings;
    const shortestMs = Math.min(loginTimeoutMs, taskTimeoutMs, nopIntervalMs, nopTimeoutMs);
    this.#cancelTick = clock.after(Math.min(1000, Math.max(5, shortestMs / 4)), () => this.#tick());
  }

  #tick(): void {
    const nowMs = this.#settings.clock.nowMs();
    const problem = this.#state === "full"
      ? this.#overdueTask(nowMs) ?? this.#shutWindow(nowMs) ?? this.#silence(nowMs)
      : this.#late(nowMs);
    if (problem !== undefined) this.destroy(problem);
    else this.#armTick();
  }

  /** Login or logout over their time. */
  #late(nowMs: number): IscsiError | undefined {
    if (nowMs < this.#deadlineMs) return undefined;
    if (this.#state === "leaving") return new TransportError(this.#leaveReason);
    const what = this.#state === "connecting" ? "no answer from the portal" : "the login did not end";
    return new TransportError(`${what} within ${this.#settings.loginTimeoutMs} ms`);
  }

  #overdueTask(nowMs: number): IscsiError | undefined {
    const { onTaskTimeout, taskTimeoutMs } = this.#settings;
    let first: TaskTimeoutError | undefined;
    for (const [tag, task] of this.#tasks) {
      if (nowMs < task.deadlineMs) break;
      const error = new TaskTimeoutError(`${task.command.name} was not done within ${taskTimeoutMs} ms`);
      first ??= error;
      if (onTaskTimeout === "reissue") break;
      this.#tasks.delete(tag);
      if (!task.isAbandoned) this.#finish(task, error);
    }
    return first;
  }

  /** A target that takes no command for as long as one may last is of no use. */
  #shutWindow(nowMs: number): IscsiError | undefined {
    if (this.#tasks.size > 0 || this.#wire.window.isOpen) this.#usableMs = nowMs;
    if (nowMs - this.#usableMs < this.#settings.taskTimeoutMs) return undefined;
    return new TransportError(`the target took no command for ${this.#settings.taskTimeoutMs} ms`);
  }

  /** Sends a ping after silence; an error if nothing came after it either. */
  #silence(nowMs: number): IscsiError | undefined {
    const due = this.#keepalive.check(nowMs);
    if (due === "dead") {
      return new TransportError(
        `the target is silent: no answer to a ping within ${this.#settings.nopTimeoutMs} ms`,
      );
    }
    if (due === "ping") {
      const tag = this.#takeTag();
      this.#keepalive.onPing(tag, nowMs);
      this.#wire.send(buildNopOut(tag, noTag, noLun, this.#wire.numbers, this.#wire.digests));
    }
    return undefined;
  }
}
