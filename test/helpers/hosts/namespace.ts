/**
 * A set of namespaces with a first process of its own (network, mounts, host name, processes), and what runs in
 * it. When the first process ends, the kernel ends all others; it ends when its standard input does, which
 * this process holds: so nothing outlives a test, however it ends. Needs root.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { execa, type ResultPromise } from "execa";
import { kill, type Ran } from "../dlsm.ts";
import { findProgram } from "../needs.ts";

export interface RunOptions {
  /** All of the program's environment; default: the namespace's. */
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string | Uint8Array;
  readonly cwd?: string;
  /** Default 120 s; then it is killed. */
  readonly timeoutMs?: number;
}

export interface HostProcess {
  /** As seen from the test. */
  readonly pid: number;
  /** As seen from within. */
  readonly innerPid: number;
  readonly parentPid: number;
  readonly command: string;
}

/** A program that runs in a namespace. */
export class Running {
  readonly #subprocess: ResultPromise;
  readonly #space: Namespace;
  /** Its end, whatever that is. */
  readonly ended: Promise<Ran>;
  stdout = "";
  stderr = "";

  constructor(subprocess: ResultPromise, space: Namespace) {
    this.#subprocess = subprocess;
    this.#space = space;
    subprocess.stdout?.on("data", (chunk) => this.stdout += chunk);
    subprocess.stderr?.on("data", (chunk) => this.stderr += chunk);
    this.ended = (async () => {
      const { exitCode } = await subprocess;
      return { exitCode, stdout: this.stdout, stderr: this.stderr };
    })();
  }

  /** Of nsenter, which waits for the program. */
  get #waiter(): number {
    return this.#subprocess.pid!;
  }

  /** Of the program itself, as seen from the test; undefined if it has ended. */
  get pid(): number | undefined {
    return this.#space.processes().find(({ parentPid }) => parentPid === this.#waiter)?.pid;
  }

  get stdin() {
    return this.#subprocess.stdin!;
  }

  /** Only the program itself; what it started in the background goes on. */
  signal(name: NodeJS.Signals): void {
    const { pid } = this;
    if (pid !== undefined) kill(pid, name);
  }

  async kill(): Promise<Ran> {
    this.signal("SIGKILL");
    return await this.ended;
  }
}

export class Namespace {
  readonly #init: ResultPromise;
  /** Of the first process, as seen from the test. */
  readonly pid: number;
  readonly #pidSpace: string;
  readonly #env: Readonly<Record<string, string>>;

  private constructor(init: ResultPromise, pid: number, env: Readonly<Record<string, string>>) {
    this.#init = init;
    this.pid = pid;
    this.#env = env;
    this.#pidSpace = readlinkSync(`/proc/${pid}/ns/pid`);
  }

  /** `setUp`: shell commands that are run first, in it, with their words in $1…; the mounts are private. */
  static async start(
    setUp: string,
    words: readonly string[],
    env: Readonly<Record<string, string>>,
  ): Promise<Namespace> {
    const script = `read -r pid rest </proc/self/stat
mount -t proc proc /proc
mount -t sysfs sysfs /sys
ip link set lo up
${setUp}
trap '' CHLD # Those that nobody waits for leave no zombies: this stays ignored.
echo "$pid"
exec cat >/dev/null`;
    const spaces = ["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child"];
    const init = execa(findProgram("unshare")!, [...spaces, "sh", "-euc", script, "init", ...words], {
      stdin: "pipe",
      stdout: "pipe",
      reject: false,
      env: { PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
    });
    for await (const line of createInterface({ input: init.stdout })) {
      return new Namespace(init, Number(line), env);
    }
    throw new Error(`no namespace: ${(await init).stderr}`);
  }

  /** Leaves the program running. */
  start(program: string, args: readonly string[], options: RunOptions & { stdin?: "pipe" } = {}): Running {
    const enter = ["--target", String(this.pid), "--net", "--mount", "--uts", "--pid"];
    const folder = `--wd=${options.cwd ?? "/"}`;
    const subprocess = execa(findProgram("nsenter")!, [...enter, folder, program, ...args], {
      env: options.env ?? this.#env,
      extendEnv: false,
      reject: false,
      ...(options.input === undefined ? { stdin: options.stdin ?? "ignore" } : { input: options.input }),
      buffer: false,
      // A signal for the test's group (Ctrl-C) is not for it.
      detached: true,
    });
    return new Running(subprocess, this);
  }

  /** Runs the program to its end. */
  async run(program: string, args: readonly string[] = [], options: RunOptions = {}): Promise<Ran> {
    const running = this.start(program, args, options);
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      running.signal("SIGKILL");
    }, options.timeoutMs ?? 120_000);
    const ran = await running.ended.finally(() => clearTimeout(timer));
    if (isLate) throw new Error(`${program} ${args.join(" ")}: never ended\n${ran.stdout}${ran.stderr}`);
    return ran;
  }

  /** Lines for `ip -batch`, on its network; process ids in them are as seen from the test. */
  async ip(lines: readonly string[], ...options: string[]): Promise<void> {
    const inNetwork = ["--target", String(this.pid), "--net", findProgram("ip")!, ...options, "-batch", "-"];
    const { exitCode, stderr } = await execa(findProgram("nsenter")!, inNetwork, {
      input: lines.join("\n"),
      reject: false,
    });
    if (exitCode !== 0) throw new Error(`ip -batch: ${stderr}\n${lines.join("\n")}`);
  }

  /** All processes in it but the first, and those that have ended. */
  processes(): HostProcess[] {
    return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).flatMap((name) => {
      try {
        if (Number(name) === this.pid || readlinkSync(`/proc/${name}/ns/pid`) !== this.#pidSpace) return [];
        const status = readFileSync(`/proc/${name}/status`, "utf8");
        if (/^State:\s+[ZX]/m.test(status)) return [];
        return [{
          pid: Number(name),
          innerPid: Number(/^NSpid:.*\s(\d+)$/m.exec(status)![1]),
          parentPid: Number(/^PPid:\s+(\d+)$/m.exec(status)![1]),
          command: readFileSync(`/proc/${name}/cmdline`, "utf8").replaceAll("\0", " ").trim(),
        }];
      } catch {
        return []; // It ended meanwhile.
      }
    });
  }

  /** Ends everything in it. */
  async close(): Promise<void> {
    kill(this.pid, "SIGKILL");
    await this.#init;
    // The kernel has ended them all when the first one is gone; their entries go a moment later.
    for (let round = 0; this.processes().length > 0; round++) {
      if (round === 500) throw new Error(`cannot be ended: ${JSON.stringify(this.processes())}`);
      await sleep(10);
    }
  }
}
