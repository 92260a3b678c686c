/** A terminal on a host, with a shell in it, by script(1). */
import { readFileSync } from "node:fs";
import { kill } from "../helpers/dlsm.ts";
import type { HostProcess, Running, TestHost } from "../helpers/hosts/mod.ts";

export class Terminal {
  readonly #host: TestHost;
  readonly #script: Running;

  private constructor(host: TestHost, script: Running) {
    this.#host = host;
    this.#script = script;
  }

  static async open(host: TestHost): Promise<Terminal> {
    const env = { ...host.env, SHELL: "/bin/sh", PS1: "ready> " };
    const script = host.start("script", ["-q", "-c", "exec sh", "/dev/null"], { env, stdin: "pipe" });
    const terminal = new Terminal(host, script);
    await terminal.says(/ready>/);
    return terminal;
  }

  /** Everything on it so far, what was typed as well. */
  get screen(): string {
    return this.#script.stdout + this.#script.stderr;
  }

  type(line: string): void {
    this.#script.stdin.write(`${line}\n`);
  }

  /** Interrupts what runs in the foreground, all processes of it. */
  pressCtrlC(): void {
    this.#script.stdin.write("\x03");
  }

  async says(pattern: RegExp, timeoutMs?: number): Promise<void> {
    try {
      await this.#host.wait(() => pattern.test(this.screen), `the terminal says ${pattern}`, timeoutMs);
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${this.screen}`, { cause: error });
    }
  }

  /** What runs in its session: the shell, and what was started there and did not leave it. */
  processes(): HostProcess[] {
    const all = this.#host.processes();
    const shell = all.find(({ parentPid }) => parentPid === this.#script.pid)!;
    const session = sessionOf(shell.pid);
    return all.filter(({ pid }) => sessionOf(pid) === session);
  }

  /** All in its session get SIGHUP, as from a shell that leaves; then reads and writes of it fail. */
  async close(): Promise<void> {
    for (const { pid } of this.processes()) kill(pid, "SIGHUP");
    await this.#script.kill();
  }
}

/** proc_pid_stat(5); undefined: it has ended. */
function sessionOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /s, "").split(" ")[3];
  } catch {
    return undefined;
  }
}
