/** Starting an engine, talking to it, and making sure that it has ended. */
import { closeSync, existsSync, fstatSync, openSync, readFileSync, statSync } from "node:fs";
import { hostname } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { execa } from "execa";
import { engineFiles, type EngineStatus, type SourceExport } from "../engine/mod.ts";
import { exitCodes, FailedError, LockedError, messageOf, PreconditionError } from "../lib/errors.ts";
import { hasEnded, identify, isRunning, kill, type ProcessId } from "../lib/process-id.ts";
import { selfCommand } from "../lib/self.ts";
import {
  connectUnix,
  NotListeningError,
  RpcClosedError,
  RpcHandshakeError,
  RpcSilentError,
  RpcTimeoutError,
} from "../rpc/mod.ts";
import type { RoleFolders } from "./layout.ts";
import { migrationOf } from "./messages.ts";
import { enginesOf, liveMapOf } from "./running-engines.ts";

const startTimeoutMs = 30_000;
/** Until the engine must have logged in to the source for the first time. */
const attachTimeoutMs = 20_000;
const callTimeoutMs = 60_000;
/** For its first word, and its status. It takes milliseconds; a look at the host must not wait for one that hangs. */
const answerTimeoutMs = 5_000;
/** One whose connection broke is asked so often, at growing distances. */
const maxAsked = 4;
const askAgainMs = 10;
/** For one that was found to hang a moment ago: a command looks several times. */
const againTimeoutMs = 1_000;
const momentMs = 30_000;
/** When engines, by their run folder, were found to hang. */
const hungAtMs = new Map<string, number>();
const stopTimeoutMs = 60_000;

/** In the environment of an engine and of what it starts (ssh): the run folder that they belong to. */
export const engineMark = "DLSM_ENGINE_RUN_DIR";

/**
 * It runs and does not answer: stopped, held up in the kernel, or without the sockets that were in its run folder. It
 * is not to be taken for gone.
 */
export class EngineHungError extends FailedError {}

/** Asks the engine; undefined if none listens. Throws EngineHungError. */
export async function askEngine<T>(
  folders: RoleFolders,
  method: string,
  params?: unknown,
): Promise<T | undefined> {
  try {
    return await askOnce<T>(folders, method, params);
  } catch (error) {
    throw hasNoRoom(folders, error) ?? error;
  }
}

async function askOnce<T>(
  folders: RoleFolders,
  method: string,
  params: unknown = {},
): Promise<T | undefined> {
  const path = join(folders.run, engineFiles.controlSocket);
  if (!existsSync(path)) {
    requireNotCutOff(folders);
    return undefined;
  }
  const isKnown = performance.now() - (hungAtMs.get(folders.run) ?? -Infinity) < momentMs;
  const patienceMs = isKnown ? againTimeoutMs : answerTimeoutMs;
  let client;
  try {
    client = await connectUnix(path, { handshakeTimeoutMs: patienceMs });
  } catch (error) {
    if (error instanceof NotListeningError) return undefined;
    throw error instanceof RpcSilentError ? hung(folders, error) : error;
  }
  try {
    const timeoutMs = method === "status" ? patienceMs : callTimeoutMs;
    const answer = await client.call(method, params, { timeoutMs }) as T;
    hungAtMs.delete(folders.run);
    return answer;
  } catch (error) {
    throw error instanceof RpcTimeoutError ? hung(folders, error) : error;
  } finally {
    client.close();
  }
}

/**
 * Throws EngineHungError if an engine serves on whose run folder was removed, moved or unmounted (by logind, when its
 * user has logged out): what it knows and its durable map does not would be lost with it.
 */
function requireNotCutOff(folders: RoleFolders): void {
  const here = statSync(join(folders.run, engineFiles.liveMap), { throwIfNoEntry: false });
  const cutOff = enginesOf(folders).find(({ pid }) => {
    const open = liveMapOf(pid);
    return open !== undefined && !(here !== undefined && open.dev === here.dev && open.ino === here.ino);
  });
  if (cutOff === undefined) return;
  const name = basename(folders.state);
  const { pid } = cutOff;
  throw new EngineHungError(
    `the engine of ${name} (pid ${pid}) serves its clients, but cannot be asked: its run folder ${folders.run} was removed`,
    {
      hint:
        `kill ${pid} ends it in good order (its clients are disconnected, nothing is lost; not so with -9), then ` +
        `dlsm resume ${migrationOf(name)} starts it again; loginctl enable-linger keeps /run/user from going`,
    },
  );
}

function hung(folders: RoleFolders, cause: Error): EngineHungError {
  hungAtMs.set(folders.run, performance.now());
  const pid = enginesOf(folders)[0]?.pid;
  const who = pid === undefined ? "" : ` (pid ${pid})`;
  return new EngineHungError(`the engine of ${basename(folders.state)}${who} does not answer`, {
    hint: "see what holds it up: its disk, or a signal that stopped it" +
      (pid === undefined
        ? ""
        : `, or too few open files (prlimit --nofile --pid ${pid}); after kill -9 ${pid} it can be started ` +
          "again, and nothing is lost"),
    cause,
  });
}

export async function engineStatus(folders: RoleFolders): Promise<EngineStatus | undefined> {
  for (let asked = 1;; asked++) {
    try {
      return await askOnce<EngineStatus>(folders, "status");
    } catch (error) {
      if (error instanceof EngineHungError) throw error;
      // If it ended while it was asked, nobody listens there now; or in a moment, because the kernel closes the
      // sockets of a killed process one after the other.
      if (asked === maxAsked) throw hasNoRoom(folders, error) ?? error;
      await sleep(asked * askAgainMs);
    }
  }
}

/** It takes connections only to end them: so does one that can open no more files. */
function hasNoRoom(folders: RoleFolders, cause: unknown): EngineHungError | undefined {
  const isEnded = cause instanceof RpcHandshakeError || cause instanceof RpcClosedError;
  const pid = enginesOf(folders)[0]?.pid;
  if (!isEnded || pid === undefined) return undefined;
  const problem = `the engine of ${basename(folders.state)} (pid ${pid}) ends every connection at once`;
  return new EngineHungError(problem, {
    hint: `see whether it has as many files open as it may (prlimit --nofile --pid ${pid} shows and raises ` +
      "that), and its log",
    cause,
  });
}

/** For a look at the host: one engine that hangs does not keep the others from being told of. */
export async function lookAtEngine(
  folders: RoleFolders,
): Promise<{ readonly engine: EngineStatus | null; readonly hung: EngineHungError | null }> {
  try {
    return { engine: await engineStatus(folders) ?? null, hung: null };
  } catch (error) {
    if (error instanceof EngineHungError) return { engine: null, hung: error };
    throw error;
  }
}

export interface EngineStart {
  /** Make the residency map. */
  readonly isNew?: boolean;
  /** Go on without the live map of an engine that was killed. */
  readonly isForced?: boolean;
}

/** It ended before it served, and said nothing: somebody killed it. */
class EngineKilledError extends FailedError {}

/** What is killed while it starts is started again; more often than so, and something is wrong with it. */
const mostStarts = 3;

/** Starts the engine in a session of its own; resolves when it serves. Rejects with the error in its log. */
export async function startEngine(folders: RoleFolders, how: EngineStart): Promise<EngineStatus> {
  for (let count = 1;; count++) {
    try {
      return await startOnce(folders, how);
    } catch (error) {
      if (!(error instanceof EngineKilledError) || count === mostStarts) throw error;
    }
  }
}

async function startOnce(folders: RoleFolders, how: EngineStart): Promise<EngineStatus> {
  await endStrays(folders);
  const { id, logStart } = launch(folders, how);
  const deadline = performance.now() + startTimeoutMs;
  for (let waitMs = 10;; waitMs = Math.min(waitMs * 2, 100)) {
    const status = await engineStatus(folders).catch(unlessHung);
    if (status !== undefined) return status;
    if (!isRunning(id)) throw lastError(folders, logStart);
    if (performance.now() > deadline) {
      kill(id, "SIGKILL");
      throw new FailedError(
        `the engine did not start within ${startTimeoutMs / 1000} s: ${logSince(folders, logStart)}`,
        { hint: `see its log, ${join(folders.state, engineFiles.log)}` },
      );
    }
    await sleep(waitMs);
  }
}

/** One that has just been started may still be busy. */
function unlessHung(error: unknown): undefined {
  if (!(error instanceof EngineHungError)) throw error;
}

/** Resolves when the engine is logged in to the source. */
export async function untilConnected(folders: RoleFolders, source: SourceExport): Promise<void> {
  const { address, port, tunnel } = source;
  const deadline = performance.now() + attachTimeoutMs;
  for (;;) {
    const status = await engineStatus(folders);
    if (status === undefined) {
      throw new FailedError("the engine ended while it was logging in to the source", {
        hint: `see its log, ${join(folders.state, engineFiles.log)}`,
      });
    }
    if (status.isConnected) return;
    if (performance.now() > deadline) {
      throw new PreconditionError(
        `${hostname()} cannot log in to the source at ${address} port ${port}: ${
          status.sourceError ?? "no answer"
        }`,
        {
          hint: tunnel === null
            ? "see that the destination can reach this address and port (firewall, route)"
            : `see that ssh ${tunnel} works on the destination without a question, and that sshd there allows ` +
              "forwarding",
        },
      );
    }
    await sleep(20);
  }
}

/** Stops the engine in good order; nothing happens if none runs. */
export async function stopEngine(folders: RoleFolders): Promise<void> {
  const status = await engineStatus(folders);
  if (status === undefined) return await endStrays(folders);
  const id = identify(status.pid);
  try {
    await askOnce(folders, "stop");
  } catch (error) {
    // It may be gone before its answer is.
    if (!(error instanceof RpcClosedError)) throw error;
  }
  if (id !== undefined && !await hasEnded(id, stopTimeoutMs)) {
    throw new FailedError(`the engine (pid ${status.pid}) does not end`);
  }
}

/**
 * Ends the engine unless the hand-off has happened, or is happening: then false, and nothing is changed. After
 * true none runs; what one that was gone before has done, its map tells. Throws EngineHungError.
 */
export async function endUnlessActivated(folders: RoleFolders): Promise<boolean> {
  const status = await engineStatus(folders);
  const id = status && identify(status.pid);
  if (id !== undefined) {
    try {
      const reply = await askOnce<{ readonly isStopping: boolean }>(folders, "stopUnlessActivated");
      if (reply?.isStopping === false) return false;
    } catch (error) {
      // It may be gone before its answer is.
      if (!(error instanceof RpcClosedError) && !(error instanceof RpcHandshakeError)) throw error;
    }
    await hasEnded(id, stopTimeoutMs);
  }
  await endStrays(folders);
  return true;
}

/** Ends the engine whatever it takes: for what is thrown away. */
export async function endEngine(folders: RoleFolders): Promise<void> {
  try {
    await stopEngine(folders);
  } catch {
    await endStrays(folders);
  }
}

/**
 * Ends engines of this volume that cannot be asked: whoever started them was killed before they served. They
 * would otherwise come up beside the next one, or serve what is not there any more. SIGKILL loses nothing.
 */
async function endStrays(folders: RoleFolders): Promise<void> {
  for (const id of enginesOf(folders)) {
    kill(id, "SIGKILL");
    if (!await hasEnded(id, stopTimeoutMs)) throw new FailedError(`the engine (pid ${id.pid}) does not end`);
  }
}

/** Also says how long the log was before: what comes after is this engine's. */
function launch(folders: RoleFolders, { isNew, isForced }: EngineStart): { id: ProcessId; logStart: number } {
  const given = [
    "engine",
    folders.state,
    folders.run,
    "--json",
    ...(isNew ? ["--new"] : []),
    ...(isForced ? ["--force"] : []),
  ];
  const { program, args } = selfCommand(given);
  // Any descriptor will do, whatever execa's types say.
  const log = openSync(join(folders.state, engineFiles.log), "a", 0o600) as 3;
  try {
    const logStart = fstatSync(log).size;
    const child = execa(program, args, {
      cwd: "/",
      env: { UV_THREADPOOL_SIZE: "8", [engineMark]: folders.run },
      stdio: ["ignore", log, log],
      detached: true,
      cleanup: false,
      reject: false,
    });
    const id = child.pid === undefined ? undefined : identify(child.pid);
    if (id === undefined) throw new FailedError("the engine's process could not be started");
    child.nodeChildProcess.unref();
    return { id, logStart };
  } finally {
    closeSync(log);
  }
}

/** Why the engine ended: with --json its error is a line {"error": {exitCode, message, hint}} in its log. */
function lastError(folders: RoleFolders, logStart: number): Error {
  const text = logSince(folders, logStart);
  for (const line of text.split("\n").filter((each) => each.startsWith('{"error":'))) {
    try {
      const { exitCode, message, hint } = JSON.parse(line).error;
      const Kind = exitCode === exitCodes.precondition
        ? PreconditionError
        : exitCode === exitCodes.locked
        ? LockedError
        : FailedError;
      return new Kind(message, { hint: hint ?? `see its log, ${join(folders.state, engineFiles.log)}` });
    } catch {
      // Cut short.
    }
  }
  return new EngineKilledError(`the engine ended at once: ${text.trim().split("\n").slice(-3).join(" / ")}`, {
    hint: `see its log, ${join(folders.state, engineFiles.log)}`,
  });
}

function logSince(folders: RoleFolders, logStart: number): string {
  try {
    return readFileSync(join(folders.state, engineFiles.log)).subarray(logStart).toString();
  } catch (error) {
    return `its log cannot be read (${messageOf(error)})`;
  }
}
