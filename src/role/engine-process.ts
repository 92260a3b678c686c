/** Starting an engine, talking to it, and making sure that it has ended. */
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { execa } from "execa";
import { engineFiles, type EngineStatus } from "../engine/mod.ts";
import { FailedError, messageOf } from "../lib/errors.ts";
import { hasEnded, identify, isRunning, type ProcessId } from "../lib/process-id.ts";
import { selfCommand } from "../lib/self.ts";
import { connectUnix, NotListeningError, RpcClosedError } from "../rpc/mod.ts";
import type { RoleFolders } from "./layout.ts";

const startTimeoutMs = 30_000;
const callTimeoutMs = 60_000;
const stopTimeoutMs = 60_000;

/** Asks the engine; undefined if none runs. */
export async function askEngine<T>(
  folders: RoleFolders,
  method: string,
  params: unknown = {},
): Promise<T | undefined> {
  const path = join(folders.run, engineFiles.controlSocket);
  if (!existsSync(path)) return undefined;
  let client;
  try {
    client = await connectUnix(path);
  } catch (error) {
    if (error instanceof NotListeningError) return undefined;
    throw error;
  }
  try {
    return await client.call(method, params, { timeoutMs: callTimeoutMs }) as T;
  } finally {
    client.close();
  }
}

export async function engineStatus(folders: RoleFolders): Promise<EngineStatus | undefined> {
  return await askEngine<EngineStatus>(folders, "status");
}

/** Starts the engine in a session of its own; resolves when it serves. Rejects with the reason from its log. */
export async function startEngine(folders: RoleFolders, isNew: boolean): Promise<EngineStatus> {
  const id = launch(folders, isNew);
  const deadline = performance.now() + startTimeoutMs;
  for (let waitMs = 10;; waitMs = Math.min(waitMs * 2, 100)) {
    const status = await engineStatus(folders);
    if (status !== undefined) return status;
    if (!isRunning(id)) throw new FailedError(`the engine ended at once: ${lastWords(folders)}`);
    if (performance.now() > deadline) {
      process.kill(id.pid, "SIGKILL");
      throw new FailedError(
        `the engine did not start within ${startTimeoutMs / 1000} s: ${lastWords(folders)}`,
      );
    }
    await sleep(waitMs);
  }
}

/** Stops the engine in good order; nothing happens if none runs. */
export async function stopEngine(folders: RoleFolders): Promise<void> {
  const status = await engineStatus(folders);
  if (status === undefined) return;
  const id = identify(status.pid);
  try {
    await askEngine(folders, "stop");
  } catch (error) {
    // It may be gone before its answer is.
    if (!(error instanceof RpcClosedError)) throw error;
  }
  if (id !== undefined && !await hasEnded(id, stopTimeoutMs)) {
    throw new FailedError(`the engine (pid ${status.pid}) does not end`);
  }
}

function launch(folders: RoleFolders, isNew: boolean): ProcessId {
  const { program, args } = selfCommand(["engine", folders.state, folders.run, ...(isNew ? ["--new"] : [])]);
  // Any descriptor will do, whatever execa's types say.
  const log = openSync(join(folders.state, engineFiles.log), "a", 0o600) as 3;
  try {
    const child = execa(program, args, {
      cwd: "/",
      env: { UV_THREADPOOL_SIZE: "8" },
      stdio: ["ignore", log, log],
      detached: true,
      cleanup: false,
      reject: false,
    });
    const id = child.pid === undefined ? undefined : identify(child.pid);
    if (id === undefined) throw new FailedError("the engine's process could not be started");
    child.nodeChildProcess.unref();
    return id;
  } finally {
    closeSync(log);
  }
}

/** The end of the engine's log: why it ended. */
function lastWords(folders: RoleFolders): string {
  try {
    const lines = readFileSync(join(folders.state, engineFiles.log), "utf8").trim().split("\n");
    return lines.slice(-3).join(" / ");
  } catch (error) {
    return `its log cannot be read (${messageOf(error)})`;
  }
}
