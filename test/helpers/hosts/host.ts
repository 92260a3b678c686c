/** One host of a test: what can be run on it, seen of it, and must not be left on it. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { MigrationStatus } from "../../../src/report/mod.ts";
import { kill, type Ran } from "../dlsm.ts";
import { findProgram } from "../needs.ts";
import { ownFiles, type PreparedHost } from "./folder.ts";
import { type HostProcess, Namespace, type Running, type RunOptions } from "./namespace.ts";

export interface Counters {
  readonly receivedBytes: number;
  readonly receivedPackets: number;
  readonly sentBytes: number;
  readonly sentPackets: number;
}

export class TestHost {
  readonly name: string;
  /** All that is this host's alone; its path is the same inside and outside, but not there on other hosts. */
  readonly folder: string;
  /** The one that its name stands for. */
  readonly address: string;
  /** What every command on it is given, through ssh or not. */
  readonly env: Readonly<Record<string, string>>;
  readonly space: Namespace;
  #sshdPid = 0;

  private constructor(prepared: PreparedHost, space: Namespace) {
    this.name = prepared.name;
    this.folder = prepared.folder;
    this.address = prepared.addresses[0]!;
    this.env = prepared.env;
    this.space = space;
  }

  /** Without a network yet, and without an ssh server. `hidden`: the folders of the other hosts. */
  static async start(prepared: PreparedHost, hidden: readonly string[]): Promise<TestHost> {
    const setUp = `name=$1; folder=$2; shift 2
echo "$name" >/proc/sys/kernel/hostname
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 755 /run/sshd
for file in ${ownFiles.join(" ")}; do mount --bind "$folder$file" "$file"; done
for other; do mount -t tmpfs -o size=4k,mode=0 tmpfs "$other"; done`;
    const words = [prepared.name, prepared.folder, ...hidden];
    return new TestHost(prepared, await Namespace.start(setUp, words, prepared.env));
  }

  /** Starts its ssh server; again, if it runs already. `extra`: lines that go before the others and win. */
  async startSshd(extra: readonly string[] = []): Promise<void> {
    await this.stopSshd();
    const file = join(this.folder, "etc", "sshd_config");
    const log = join(this.folder, "etc", "sshd.log");
    const options = ["-f", file, "-E", log, ...extra.flatMap((line) => ["-o", line])];
    const { exitCode, stderr } = await this.run(findProgram("sshd")!, options);
    if (exitCode !== 0) throw new Error(`sshd of ${this.name}: ${stderr}${readFileSync(log, "utf8")}`);
    const listener = () =>
      this.space.processes().find(({ command }) => /^sshd: .*\[listener\]/.test(command));
    await this.wait(() => listener() !== undefined, "sshd listens");
    this.#sshdPid = listener()!.pid;
  }

  /** Nobody can log in any more; who is stays. */
  async stopSshd(): Promise<void> {
    const pid = this.#sshdPid;
    if (pid === 0) return;
    kill(pid, "SIGKILL");
    await this.wait(() => !this.space.processes().some((other) => other.pid === pid), "sshd ends");
    this.#sshdPid = 0;
  }

  /** A path in its folder. */
  path(name: string): string {
    return join(this.folder, name);
  }

  run(program: string, args: readonly string[] = [], options: RunOptions = {}): Promise<Ran> {
    return this.space.run(program, args, { cwd: this.folder, ...options });
  }

  start(program: string, args: readonly string[], options: RunOptions & { stdin?: "pipe" } = {}): Running {
    return this.space.start(program, args, { cwd: this.folder, ...options });
  }

  /** Runs `dlsm` to its end, whatever that is. */
  dlsm(...args: string[]): Promise<Ran> {
    return this.run("dlsm", args);
  }

  /** Runs `dlsm`, which must end with exit code 0. */
  async ok(...args: string[]): Promise<Ran> {
    const ran = await this.dlsm(...args);
    if (ran.exitCode !== 0) {
      throw new Error(
        `${this.name}: dlsm ${args.join(" ")}: exit ${ran.exitCode}\n${ran.stdout}${ran.stderr}`,
      );
    }
    return ran;
  }

  /**
   * What `dlsm status --json` says here: of all migrations that this host has a part in, or of the one. It is
   * not asked for by its id: then its other host would be asked too, which may be out of reach.
   */
  async status(id?: string): Promise<MigrationStatus[]> {
    const { stdout } = await this.dlsm("status", "--json");
    const objects = stdout.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
    return objects.filter((object) => "phase" in object && (id === undefined || object.id === id));
  }

  /** Polls the status of one until it is so; undefined: it is not known here (any more). */
  async until(
    id: string,
    condition: (status: MigrationStatus | undefined) => boolean,
    what: string,
    timeoutMs = 120_000,
  ): Promise<MigrationStatus | undefined> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const [status] = await this.status(id);
      if (condition(status)) return status;
      if (performance.now() > deadline) {
        throw new Error(`${this.name}: never: ${what}; last ${JSON.stringify(status)}`);
      }
      await sleep(50);
    }
  }

  /** Of a disk's volume; it can be connected to from the test as well. */
  nbdSocket(diskId: string): string {
    return join(this.env.DLSM_RUN_DIR!, diskId, "dst", "nbd.sock");
  }

  /**
   * All but those that make it a host: the first one, and the ssh server. Its process of a connection whose
   * other end fell silent stays for long; what it ran is what counts.
   */
  processes(): HostProcess[] {
    return this.space.processes().filter(({ pid, command }) =>
      pid !== this.#sshdPid && !/^sshd: /.test(command)
    );
  }

  /** Of its network interface, as Linux counts. Grow only. */
  counters(): Counters {
    const text = readFileSync(`/proc/${this.space.pid}/net/dev`, "utf8");
    const numbers = /^\s*eth0:\s*(.*)$/m.exec(text)![1]!.split(/\s+/).map(Number);
    const [receivedBytes, receivedPackets, sentBytes, sentPackets] = [0, 1, 8, 9].map((at) => numbers[at]!);
    return { receivedBytes, receivedPackets, sentBytes, sentPackets } as Counters;
  }

  /** Files in the state, run and temporary folders (folders do not count, nor the record of what ended and the host's id), and mounts below the host's folder. */
  leftovers(): string[] {
    return [...this.#files(), ...this.#mounts()];
  }

  #files(): string[] {
    const { DLSM_STATE_DIR, DLSM_RUN_DIR, TMPDIR } = this.env as Record<string, string>;
    try {
      return [DLSM_STATE_DIR!, DLSM_RUN_DIR!, TMPDIR!].filter((folder) => existsSync(folder)).flatMap((
        folder,
      ) =>
        readdirSync(folder, { recursive: true, encoding: "utf8" })
          .map((name) => join(folder, name))
          .filter((path) =>
            !/\/(ended|host-id)$/.test(path) && !statSync(path, { throwIfNoEntry: false })?.isDirectory()
          )
      );
    } catch (error) {
      // A folder was removed while it was read: look again.
      if ((error as { code?: string }).code === "ENOENT") return this.#files();
      throw error;
    }
  }

  #mounts(): string[] {
    const lines = readFileSync(`/proc/${this.space.pid}/mountinfo`, "utf8").trim().split("\n");
    return lines.map((line) => line.split(" ")[4]!).filter((point) => point.startsWith(`${this.folder}/`));
  }

  /** Waits until no process and no file is left; throws with what is. For the end of a test that went well. */
  async nothingLeft(timeoutMs = 30_000): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const [processes, files] = [this.processes(), this.leftovers()];
      if (processes.length === 0 && files.length === 0) return;
      if (performance.now() > deadline) {
        throw new Error(`left behind on ${this.name}: ${JSON.stringify({ processes, files }, null, 1)}`);
      }
      await sleep(50);
    }
  }

  /** Polls until it is so. */
  async wait(isSo: () => boolean, what: string, timeoutMs = 60_000): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (!isSo()) {
      if (performance.now() > deadline) throw new Error(`${this.name}: never: ${what}`);
      await sleep(10);
    }
  }
}
