/**
 * A TCP connection that another host makes for this one: `ssh -W`, whose stdin and stdout are the connection.
 *
 * The user's own configuration, keys, agent and known hosts count; host keys are checked as ever. Only what
 * would spoil the stream is set: nobody is asked for a password, no local command writes into it, and no
 * connection is shared with other sessions of ssh, which would outlive this one or make it wait.
 *
 * The child ends with its owner, whatever ends it: its stdin is closed then.
 */
import { execa } from "execa";
import { portalText } from "../iscsi-initiator/mod.ts";
import type { Connect, TransportHandlers } from "../iscsi-initiator/mod.ts";
import { maxStderrCharacters, whyNoForward } from "./forward-errors.ts";

/** Also while it logs in; below the time that a login to a target may take. */
const connectTimeoutSeconds = 10;
/** A link that went silent is noticed after (count + 1) intervals. */
const aliveIntervalSeconds = 5;
const aliveCount = 3;
/** A child that does not end by itself is killed. */
const endTimeoutMs = 2000;
/** What is still in the pipes of a child that ended is waited for, unless something else holds them open. */
const drainTimeoutMs = 500;

/** argv of ssh, without its name. `destination` as in `ssh DESTINATION`. */
export function forwardArguments(destination: string, address: { host: string; port: number }): string[] {
  const options = [
    "BatchMode=yes",
    `ConnectTimeout=${connectTimeoutSeconds}`,
    `ServerAliveInterval=${aliveIntervalSeconds}`,
    `ServerAliveCountMax=${aliveCount}`,
    "ControlMaster=no",
    "ControlPath=none",
    "PermitLocalCommand=no",
    // Below this level it does not say why the other host made no connection.
    "LogLevel=INFO",
  ];
  const { host, port } = address;
  return [...options.flatMap((option) => ["-o", option]), "-W", portalText(host, port), "--", destination];
}

/**
 * The transport of connections that `destination` makes. Its errors say why there is none; they end in words
 * of ssh or of the other host.
 */
export function connectThrough(destination: string): Connect {
  return (address, handlers) => new Forward(destination, address, handlers);
}

class Forward {
  readonly #handlers: TransportHandlers;
  readonly #describe: (stderr: string, ending: string) => string;
  readonly #child;
  #stderr = "";
  #isOver = false;
  #hasEnded = false;

  constructor(destination: string, address: { host: string; port: number }, handlers: TransportHandlers) {
    this.#handlers = handlers;
    this.#describe = (stderr, ending) => whyNoForward(destination, address, stderr, ending);
    const child = execa("ssh", forwardArguments(destination, address), {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
      encoding: "buffer",
      buffer: false,
      reject: false,
      cleanup: false,
    });
    this.#child = child;
    const { stdin, stdout, stderr, nodeChildProcess } = child;
    stdout.on("data", (chunk: Uint8Array) => {
      if (!this.#isOver) handlers.onData(chunk);
    });
    // The other side has no more to say: no more is said to it, and ssh ends.
    stdout.on("end", () => stdin.end());
    stderr.on("data", (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString()).slice(-maxStderrCharacters);
    });
    // Broken pipes; how ssh ended says more.
    for (const stream of [stdin, stdout, stderr]) stream.on("error", () => {});
    nodeChildProcess.on("error", (error) => this.#end(`it cannot be started: ${error.message}`));
    nodeChildProcess.on("exit", (code, signal) => {
      this.#hasEnded = true;
      const ending = code === 0 ? undefined : signal === null ? `it ended with ${code}` : `${signal} ended it`;
      const timer = setTimeout(() => this.#end(ending), drainTimeoutMs);
      nodeChildProcess.once("close", () => {
        clearTimeout(timer);
        this.#end(ending);
      });
    });
    // ssh keeps what is written until it is through.
    process.nextTick(() => {
      if (!this.#isOver) handlers.onConnect();
    });
  }

  write(bytes: Uint8Array): void {
    this.#child.stdin.write(bytes);
  }

  get bufferedBytes(): number {
    return this.#child.stdin.writableLength;
  }

  destroy(): void {
    this.#isOver = true;
    const { stdin, stdout, nodeChildProcess } = this.#child;
    stdin.destroy();
    stdout.destroy();
    if (this.#hasEnded) return;
    nodeChildProcess.kill("SIGTERM");
    const timer = setTimeout(() => this.#hasEnded || nodeChildProcess.kill("SIGKILL"), endTimeoutMs);
    nodeChildProcess.once("exit", () => clearTimeout(timer));
  }

  /** `ending`: how ssh failed; undefined if the connection was closed in order. */
  #end(ending: string | undefined): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#handlers.onClose(
      ending === undefined ? undefined : new Error(this.#describe(this.#stderr, ending)),
    );
  }
}
