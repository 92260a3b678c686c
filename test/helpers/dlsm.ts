/**
 * Runs the real `dlsm` with folders of a test's own, and makes sure that nothing of it is left.
 *
 *     const dlsm = new Dlsm();
 *     const { status } = await dlsm.migrateDetached(source, destination, ["--handoff", "manual"]);
 *     …
 *     await dlsm.close(); // kills what is left, and tells what there was
 */
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { execa, type Subprocess } from "execa";
import { selfCommand } from "../../src/lib/self.ts";
import { statusesOf } from "../../src/migration/status.ts";
import type { MigrationStatus } from "../../src/report/mod.ts";
import { type Host, localHost } from "../../src/role/mod.ts";
import { tempFolder } from "./temp.ts";

export interface Ran {
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

export class Dlsm {
  readonly folder: string;
  readonly environment: Record<string, string>;
  #host: Host | undefined;

  constructor(environment: Record<string, string> = {}) {
    this.folder = tempFolder("i");
    this.environment = {
      DLSM_STATE_DIR: join(this.folder, "state"),
      DLSM_RUN_DIR: join(this.folder, "run"),
      NO_COLOR: "1",
      ...environment,
    };
  }

  /** A path in the test's folder. */
  path(name: string): string {
    return join(this.folder, name);
  }

  /** Starts a command and leaves it running. */
  start(...args: string[]): Subprocess {
    const { program, args: argv } = selfCommand(args);
    return execa(program, argv, { env: this.environment, reject: false, stdin: "ignore", cwd: this.folder });
  }

  /** Runs a command to its end, whatever that is. */
  async run(...args: string[]): Promise<Ran> {
    const { exitCode, stdout, stderr } = await this.start(...args);
    return { exitCode, stdout: String(stdout), stderr: String(stderr) };
  }

  /** Runs a command that must end with exit code 0. */
  async ok(...args: string[]): Promise<Ran> {
    const ran = await this.run(...args);
    if (ran.exitCode !== 0) {
      throw new Error(`dlsm ${args.join(" ")}: exit ${ran.exitCode}\n${ran.stdout}\n${ran.stderr}`);
    }
    return ran;
  }

  /** `migrate --detach --json`: the status it printed, with the socket of the volume. */
  async migrateDetached(
    source: string,
    destination: string,
    args: readonly string[] = [],
  ): Promise<Detached> {
    const { stdout } = await this.ok("migrate", source, destination, "--detach", "--json", ...args);
    const status = JSON.parse(stdout.trim().split("\n").at(-1)!) as MigrationStatus;
    return { id: status.id, status, uri: status.disks[0].nbdUri!, socket: this.socketOf(status.id) };
  }

  socketOf(id: string): string {
    return join(this.environment.DLSM_RUN_DIR, id, "dst", "nbd.sock");
  }

  /**
   * Undefined if there is no such migration (any more). Asked of the roles as `dlsm status` asks them, but in
   * this process: it is polled all the time, and to start a command each time would take most of a test's.
   */
  async status(id: string): Promise<MigrationStatus | undefined> {
    const { DLSM_STATE_DIR: state, DLSM_RUN_DIR: run } = this.environment;
    this.#host ??= await localHost({ state, run });
    const [sources, destinations] = await Promise.all([
      this.#host.ask("source.list", { id }),
      this.#host.ask("destination.list", { id }),
    ]);
    return statusesOf(sources, destinations)[0];
  }

  /** Polls the status until it is so; an unknown migration is undefined. */
  async until(
    id: string,
    condition: (status: MigrationStatus | undefined) => boolean,
    what: string,
    timeoutMs = 60_000,
  ): Promise<MigrationStatus | undefined> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const status = await this.status(id);
      if (condition(status)) return status;
      if (performance.now() > deadline) throw new Error(`never: ${what}; last ${JSON.stringify(status)}`);
      await sleep(50);
    }
  }

  /** Pids of engines, drivers, tgtds and commands that belong to this test's folders. */
  processes(): { pid: number; command: string }[] {
    return readdirSync("/proc").filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid).flatMap(
      (name) => {
        try {
          const command = readFileSync(`/proc/${name}/cmdline`, "utf8").replaceAll("\0", " ").trim();
          const environment = readFileSync(`/proc/${name}/environ`, "utf8");
          const state = readFileSync(`/proc/${name}/stat`, "utf8").replace(/^.*\) /s, "")[0];
          const cwd = command.includes("tgtd") ? readlinkSync(`/proc/${name}/cwd`) : "";
          const isOurs = [command, environment, cwd].some((text) => text.includes(this.folder));
          return isOurs && state !== "Z" ? [{ pid: Number(name), command }] : [];
        } catch {
          return []; // Gone, or somebody else's.
        }
      },
    );
  }

  /** Files that dlsm left in its folders (folders do not count, nor the record of what ended and the host's id). */
  leftovers(): string[] {
    try {
      return [this.environment.DLSM_STATE_DIR, this.environment.DLSM_RUN_DIR].flatMap((folder) =>
        existsSync(folder)
          ? readdirSync(folder, { recursive: true, encoding: "utf8" })
            .map((name) => join(folder, name))
            .filter((path) =>
              !/\/(ended|host-id)$/.test(path) && !statSync(path, { throwIfNoEntry: false })?.isDirectory()
            )
          : []
      );
    } catch (error) {
      // A folder was removed while it was read: look again.
      if ((error as { code?: string }).code === "ENOENT") return this.leftovers();
      throw error;
    }
  }

  /** Waits until no process and no file is left; throws with what is. For the end of a successful run. */
  async nothingLeft(timeoutMs = 30_000): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const processes = this.processes();
      const files = this.leftovers();
      if (processes.length === 0 && files.length === 0) return;
      if (performance.now() > deadline) {
        throw new Error(`left behind: ${JSON.stringify({ processes, files })}`);
      }
      await sleep(50);
    }
  }

  /** Kills what is still there. */
  async close(): Promise<void> {
    await this.#host?.close();
    for (let round = 0; round < 100; round++) {
      const left = this.processes();
      if (left.length === 0) return;
      for (const { pid } of left) kill(pid, "SIGKILL");
      await sleep(20);
    }
    throw new Error(`cannot be killed: ${JSON.stringify(this.processes())}`);
  }
}

export interface Detached {
  readonly id: string;
  readonly status: MigrationStatus;
  readonly uri: string;
  readonly socket: string;
}

export function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It ended meanwhile.
  }
}
