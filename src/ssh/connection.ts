/**
 * One run of the system's ssh: its stdio as a byte stream, its words as log lines, and how it ended.
 *
 * ssh stays in the process group of the command, so that it can ask on the terminal (for a password, or
 * whether a host key is right). It must not end with Ctrl-C, though: the step under way still needs it. It
 * is therefore started with those signals ignored, which it respects, except at a prompt.
 */
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { execa } from "execa";
import { messageOf, PreconditionError } from "../lib/errors.ts";
import { findProgram } from "../lib/program.ts";
import { joinStreams } from "../rpc/mod.ts";
import { type Errand, sshArguments } from "./destination.ts";

export interface SshOptions {
  /** Whether ssh may ask questions; default: whether this process has a terminal on stdin. */
  readonly isInteractive?: boolean;
  /** Called with each line that ssh or the far side's stderr says. */
  onLog?(line: string): void;
}

export interface SshEnd {
  /** Null if ssh was ended by a signal. 255: ssh itself failed; others are the remote command's. */
  readonly exitCode: number | null;
  readonly signal: string | null;
  /** The last lines of its stderr. */
  readonly lines: readonly string[];
  /** By `close` or `kill`: how it ended then says nothing. */
  readonly wasKilled: boolean;
}

export interface SshConnection {
  readonly destination: string;
  readonly isInteractive: boolean;
  readonly stream: Duplex;
  readonly pid: number | undefined;
  /** Resolves (never rejects) when ssh has ended and said all it had to say. */
  readonly ended: Promise<SshEnd>;
  /** Lets ssh end: nothing more will be sent. After `graceMs` it is killed. */
  close(graceMs?: number): Promise<SshEnd>;
  /** Ends ssh at once. */
  kill(): void;
}

const ignoredSignals = "INT,QUIT,HUP";
const maxLines = 100;
const maxLineLength = 2000;
const defaultGraceMs = 5000;
/** Until what does not end by itself is ended the hard way. */
const killTimeoutMs = 2000;
/** Somebody else may hold ssh's stderr open (a shared connection in the background). */
const lastWordsMs = 500;

/** Starts ssh. Throws UsageError for a bad destination, PreconditionError if there is no ssh here. */
export function connect(destination: string, errand: Errand, options: SshOptions = {}): SshConnection {
  const { isInteractive = process.stdin.isTTY === true } = options;
  const args = sshArguments(destination, errand, isInteractive);
  const ssh = findProgram("ssh");
  if (ssh === undefined) {
    throw new PreconditionError(`there is no ssh on this host to reach ${destination} with`, {
      hint: "install it: apt-get install openssh-client",
    });
  }
  const child = execa("env", [`--ignore-signal=${ignoredSignals}`, ssh, ...args], {
    stdio: ["pipe", "pipe", "pipe"],
    buffer: false,
    encoding: "buffer",
    reject: false,
  });
  const words = new Words(options.onLog ?? (() => {}));
  const silence = new Promise<void>((resolve) => child.stderr.once("close", resolve));
  child.stderr.on("data", (chunk: Uint8Array) => words.hear(chunk));
  child.stderr.on("error", () => {});
  let wasKilled = false;
  let hasExited = false;
  child.nodeChildProcess.once("exit", () => hasExited = true);
  const ended = new Promise<SshEnd>((resolve) => {
    const finish = async (exitCode: number | null, signal: string | null) => {
      await Promise.race([silence, sleep(lastWordsMs, undefined, { ref: false })]);
      words.flush();
      resolve({ exitCode, signal, lines: words.lines, wasKilled });
    };
    child.nodeChildProcess.once("exit", (code, signal) => void finish(code, signal));
    child.nodeChildProcess.once("error", (error) => {
      words.add(`ssh could not be started: ${messageOf(error)}`);
      void finish(null, null);
    });
  });
  const stream = joinStreams(child.stdout, child.stdin);
  // Whoever uses the stream hears of errors as well; when nobody does, they are no bug.
  stream.on("error", () => {});
  const kill = () => {
    wasKilled = true;
    stream.destroy();
    // Its pid may be another process' by now.
    if (hasExited) return;
    // On this signal it ends the proxy command that it may have started. It does not hear it while stopped.
    child.nodeChildProcess.kill("SIGTERM");
    const timer = setTimeout(() => killHard(child.pid), killTimeoutMs);
    child.nodeChildProcess.once("exit", () => clearTimeout(timer));
  };
  return {
    destination,
    isInteractive,
    stream,
    pid: child.pid,
    ended,
    close: async (graceMs = defaultGraceMs) => {
      if (!stream.writableEnded && !stream.destroyed) stream.end();
      // Whoever reads no more must not keep ssh waiting.
      stream.resume();
      const late = Symbol("late");
      const first = await Promise.race([ended, sleep(graceMs, late, { ref: false })]);
      if (first !== late) return first as SshEnd;
      kill();
      return await ended;
    },
    kill,
  };
}

/** By its pid: Deno takes a child that was sent one signal for gone, and sends no other. */
function killHard(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(pid, "SIGKILL");
  } catch {
    // It ended meanwhile.
  }
}

/** Lines out of ssh's stderr; the last ones are kept. */
class Words {
  readonly #onLine: (line: string) => void;
  readonly #decoder = new TextDecoder();
  #lines: string[] = [];
  #rest = "";

  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine;
  }

  get lines(): readonly string[] {
    return this.#lines;
  }

  hear(chunk: Uint8Array): void {
    const [...pieces] = (this.#rest + this.#decoder.decode(chunk, { stream: true })).split("\n");
    this.#rest = pieces.pop()!;
    for (const line of pieces) this.add(line);
    if (this.#rest.length > maxLineLength) this.flush();
  }

  add(text: string): void {
    const line = text.trimEnd().slice(0, maxLineLength);
    if (line === "") return;
    this.#lines = [...this.#lines.slice(1 - maxLines), line];
    this.#onLine(line);
  }

  flush(): void {
    const rest = this.#rest;
    this.#rest = "";
    this.add(rest);
  }
}
