/**
 * Typed calls to one running tgtd, one for each of tgtadm's operations that are used here. Each runs tgtadm
 * (the account's secret goes over the management socket instead), ends within `timeoutMs`, and throws
 * TgtError.
 */
import { execa } from "execa";
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import * as args from "./arguments.ts";
import type { Credentials } from "./check.ts";
import { errorFromNumber, errorFromTgtadm, TgtError, withLog } from "./errors.ts";
import { encodeNewAccount } from "./management-message.ts";
import { requestReply } from "./management-socket.ts";
import * as parse from "./parse.ts";
import { environment } from "./programs.ts";
import type { AccountDirection, Connection, LunStatistics, Portal, SystemState, Target } from "./types.ts";

export interface ControlOptions {
  /** The daemon's folder. */
  readonly folder: string;
  /** Full path of tgtadm. */
  readonly tgtadm: string;
  /** How long one call may take. tgtd answers between two I/Os; a spinning one never does. */
  readonly timeoutMs: number;
}

export const logName = "log";
/** As much of the log as one failed request can have caused. */
const maxLogBytes = 16 * 1024;

export class Control {
  readonly #options: ControlOptions;

  constructor(options: ControlOptions) {
    this.#options = options;
  }

  async system(): Promise<SystemState> {
    return parse.parseSystem(await this.#run("show the state of tgtd", args.showSystem()));
  }

  /** Ends tgtd. Throws "invalidRequest" while it has targets. */
  async shutDown(): Promise<void> {
    await this.#run("stop tgtd", args.deleteSystem());
  }

  async portals(): Promise<Portal[]> {
    return parse.parsePortals(await this.#run("show the portals", args.showPortals()));
  }

  /** Throws "portInUse", "addressNotAvailable" or "permission". Port 0: any free one. */
  async newPortal(portal: Portal): Promise<void> {
    await this.#run(`listen on ${args.portalText(portal)}`, args.newPortal(portal));
  }

  async deletePortal(portal: Portal): Promise<void> {
    await this.#run(`stop listening on ${args.portalText(portal)}`, args.deletePortal(portal));
  }

  async targets(): Promise<Target[]> {
    return parse.parseTargets(await this.#run("show the targets", args.showTargets()));
  }

  async newTarget(tid: number, name: string): Promise<void> {
    await this.#run(`make target ${name}`, args.newTarget(tid, name));
  }

  async updateTarget(tid: number, name: string, value: string): Promise<void> {
    await this.#run(`set ${name} of target ${tid}`, args.updateTarget(tid, name, value));
  }

  /** With `force` although sessions are there; see teardown.ts for the safe way. */
  async deleteTarget(tid: number, force: boolean): Promise<void> {
    await this.#run(`delete target ${tid}`, args.deleteTarget(tid, force));
  }

  async newLun(lun: args.NewLun): Promise<void> {
    await this.#run(`add LUN ${lun.lun} to target ${lun.tid}`, args.newLun(lun));
  }

  /** Makes the LUN read-only and gives it its ids. */
  async protectLun(tid: number, lun: number, serial: string): Promise<void> {
    await this.#run(`make LUN ${lun} of target ${tid} read-only`, args.protectLun(tid, lun, serial));
  }

  async deleteLun(tid: number, lun: number): Promise<void> {
    await this.#run(`delete LUN ${lun} of target ${tid}`, args.deleteLun(tid, lun));
  }

  async accounts(): Promise<string[]> {
    return parse.parseAccounts(await this.#run("show the accounts", args.showAccounts()));
  }

  /** The secret is in no argv, log or file. */
  async newAccount({ user, secret }: Credentials): Promise<void> {
    const action = `make account ${user}`;
    const reply = await requestReply({
      socketPath: join(this.#options.folder, args.socketName),
      message: encodeNewAccount(user, secret),
      timeoutMs: this.#options.timeoutMs,
      action,
    });
    if (reply.error !== 0) throw errorFromNumber(reply.error, action);
  }

  /**
   * Bind one account of each direction to a target, not more: tgtd 1.0.85 loses track of the others when one
   * of several incoming ones is unbound.
   */
  async bindAccount(tid: number, user: string, direction: AccountDirection): Promise<void> {
    await this.#run(`bind account ${user} to target ${tid}`, args.bindAccount(tid, user, direction));
  }

  /** A target that the account was bound to needs no authentication any more: delete that first. */
  async deleteAccount(user: string): Promise<void> {
    await this.#run(`delete account ${user}`, args.deleteAccount(user));
  }

  /** Entries widen access: whoever matches one of them may log in. */
  async allowAddress(tid: number, address: string): Promise<void> {
    await this.#run(`allow ${address} at target ${tid}`, args.allowAddress(tid, address));
  }

  /** Sessions that are there go on. */
  async denyAddress(tid: number, address: string): Promise<void> {
    await this.#run(`no longer allow ${address} at target ${tid}`, args.denyAddress(tid, address));
  }

  async connections(tid: number): Promise<Connection[]> {
    const text = await this.#run(`show the connections of target ${tid}`, args.showConnections(tid));
    return parse.parseConnections(text);
  }

  async deleteConnection(tid: number, sid: number, cid: number): Promise<void> {
    await this.#run(`close connection ${sid}/${cid} of target ${tid}`, args.deleteConnection(tid, sid, cid));
  }

  async statistics(tid: number): Promise<LunStatistics[]> {
    const text = await this.#run(`show the statistics of target ${tid}`, args.targetStatistics(tid));
    return parse.parseStatistics(text);
  }

  async #run(action: string, argv: readonly string[]): Promise<string> {
    const { folder, tgtadm, timeoutMs } = this.#options;
    const logStart = logSize(folder);
    const result = await execa(tgtadm, argv, {
      cwd: folder,
      extendEnv: false,
      env: environment({ TGT_IPC_SOCKET: args.socketPrefix }),
      stdin: "ignore",
      timeout: timeoutMs,
      killSignal: "SIGKILL",
      reject: false,
      stripFinalNewline: false,
    });
    if (result.timedOut) {
      throw new TgtError("timeout", `${action}: tgtd did not answer within ${timeoutMs} ms`);
    }
    if (result.exitCode === undefined) throw notRun(action, folder, tgtadm, result.cause);
    const error = errorFromTgtadm(result.exitCode, result.stderr, action);
    if (error !== undefined) throw withLog(error, readLog(folder, logStart));
    return result.stdout;
  }
}

/** tgtadm could not be started, or a signal ended it. */
function notRun(action: string, folder: string, tgtadm: string, cause: unknown): TgtError {
  const missing = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
  if (missing && logSize(folder) < 0) {
    return new TgtError("noDaemon", `${action}: there is no folder ${folder}`);
  }
  if (missing) {
    return new TgtError("notInstalled", `${action}: ${tgtadm} is not there`, {
      hint: "apt install tgt",
      cause,
    });
  }
  return new TgtError("noDaemon", `${action}: ${tgtadm} could not be run`, { cause });
}

/** -1: there is no log. */
function logSize(folder: string): number {
  return withLogFile(folder, (fd) => fstatSync(fd).size) ?? -1;
}

/** What tgtd wrote since `start`; "" if there is no log. */
export function readLog(folder: string, start = 0): string {
  return withLogFile(folder, (fd) => {
    const bytes = Buffer.alloc(maxLogBytes);
    return bytes.toString("utf8", 0, readSync(fd, bytes, 0, bytes.length, Math.max(0, start)));
  }) ?? "";
}

function withLogFile<T>(folder: string, use: (fd: number) => T): T | undefined {
  let fd: number;
  try {
    fd = openSync(join(folder, logName), "r");
  } catch {
    return undefined;
  }
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}
