/**
 * A far side on this machine: an ssh server of a test's own on 127.0.0.1, and an ssh client that knows it.
 *
 *     const far = await FarSide.start();
 *     // `ssh node …` of this process, and of what it starts, gets there now.
 *     await far.close();
 *
 * The client's settings come from a program named `ssh` that goes first in PATH, because ssh takes ~/.ssh from
 * /etc/passwd, whatever HOME says.
 */
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { userInfo } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { execa } from "execa";
import { selfCommand } from "../../src/lib/self.ts";
import { findProgram, isRoot } from "../helpers/needs.ts";
import { until } from "../helpers/processes.ts";
import { tempFolder } from "../helpers/temp.ts";

export const programsOfFarSide = ["ssh", "sshd", "ssh-keygen"];

export interface FarSideOptions {
  /** Of the commands run there, beside the usual. */
  readonly env?: Readonly<Record<string, string>>;
  /** What the program `dlsm` there is; default: this source tree. Null: there is none. */
  readonly dlsm?: string | null;
  /** Lines for sshd_config. */
  readonly settings?: readonly string[];
}

interface Server {
  kill(): void;
  readonly finished: Promise<unknown>;
}

export class FarSide {
  readonly folder: string;
  readonly port: number;
  readonly #server: Server;
  readonly #path = process.env.PATH;

  private constructor(folder: string, port: number, server: Server) {
    this.folder = folder;
    this.port = port;
    this.#server = server;
  }

  static async start(options: FarSideOptions = {}): Promise<FarSide> {
    const folder = tempFolder("far");
    for (const name of ["bin", "client", "home"]) mkdirSync(join(folder, name));
    await Promise.all(["host_key", "user_key", "other_key"].map((name) => makeKey(join(folder, name))));
    writeProgram(join(folder, "bin", "dlsm"), options.dlsm === undefined ? thisTree() : options.dlsm);
    // Where the server of a real host has it from its service.
    if (isRoot && !existsSync("/run/sshd")) mkdirSync("/run/sshd", { mode: 0o755 });

    const port = await freePort();
    writeFileSync(join(folder, "sshd_config"), serverSettings(folder, port, options));
    const log = join(folder, "sshd.log");
    const child = execa(findProgram("sshd")!, ["-D", "-f", join(folder, "sshd_config"), "-E", log], {
      reject: false,
      stdin: "ignore",
    });
    const far = new FarSide(folder, port, {
      kill: () => child.kill("SIGTERM"),
      finished: child.then(() => {}),
    });
    await until(() => existsSync(log) && /Server listening/.test(readFileSync(log, "utf8")), "sshd listens");
    far.know();
    process.env.PATH = `${join(folder, "client")}:${far.#path}`;
    return far;
  }

  /** `node` and `user@node` are this server. `settings` go first and win; they are for all names. */
  know(settings: readonly string[] = []): void {
    const { folder, port } = this;
    const hostKey = readFileSync(join(folder, "host_key.pub"), "utf8").trim();
    writeFileSync(join(folder, "known_hosts"), `[127.0.0.1]:${port} ${hostKey}\n`);
    const config = [
      ...settings,
      `IdentityFile ${join(folder, "user_key")}`,
      "IdentitiesOnly yes",
      "IdentityAgent none",
      `UserKnownHostsFile ${join(folder, "known_hosts")}`,
      "GlobalKnownHostsFile /dev/null",
      `User ${userInfo().username}`,
      "Host node",
      "HostName 127.0.0.1",
      `Port ${port}`,
      "",
    ];
    writeFileSync(join(folder, "client", "config"), config.join("\n"));
    this.client(`exec ${this.sshCommand} "$@"`);
  }

  /** The real ssh, with the client's settings. */
  get sshCommand(): string {
    return `${findSsh(this.#path)} -F ${join(this.folder, "client", "config")}`;
  }

  /** What `ssh` is: lines for sh. */
  client(script: string): void {
    writeProgram(join(this.folder, "client", "ssh"), script);
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  async close(): Promise<void> {
    process.env.PATH = this.#path;
    this.#server.kill();
    await this.#server.finished;
  }
}

/** A program that runs these lines of sh; null: none. */
export function writeProgram(path: string, script: string | null): void {
  if (script === null) return;
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
}

/** Polls until it is so. */
export async function eventually(isSo: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!await isSo()) {
    if (performance.now() > deadline) throw new Error(`never: ${what}`);
    await sleep(10);
  }
}

/** Lines of sh that run this source tree's dlsm, by what runs the test. */
export function thisTree(): string {
  const { program, args } = selfCommand([]);
  return `exec ${[program, ...args].map((word) => `'${word}'`).join(" ")} "$@"`;
}

/** Lines of sh that greet as another version of dlsm does, and wait for the end. */
export function oldDlsm(version: string): string {
  return `echo "dlsm-rpc 1 max-calls=32 dlsm=${version}"; exec cat >/dev/null`;
}

async function makeKey(path: string): Promise<void> {
  await execa("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path]);
}

function findSsh(path: string | undefined): string {
  return path!.split(":").map((folder) => join(folder, "ssh")).find(existsSync)!;
}

function serverSettings(folder: string, port: number, { env, settings }: FarSideOptions): string {
  const { DENO_DIR, HOME = "/root", NODE_COMPILE_CACHE } = process.env;
  const variables = {
    PATH: `${join(folder, "bin")}:/usr/sbin:/usr/bin:/sbin:/bin`,
    HOME: join(folder, "home"),
    DLSM_STATE_DIR: join(folder, "state"),
    DLSM_RUN_DIR: join(folder, "run"),
    NO_COLOR: "1",
    // What is compiled already.
    DENO_DIR: DENO_DIR ?? join(HOME, ".cache", "deno"),
    ...(NODE_COMPILE_CACHE === undefined ? {} : { NODE_COMPILE_CACHE }),
    ...env,
  };
  return [
    ...settings ?? [],
    "ListenAddress 127.0.0.1",
    `Port ${port}`,
    `HostKey ${join(folder, "host_key")}`,
    `AuthorizedKeysFile ${join(folder, "user_key.pub")}`,
    "PidFile none",
    "StrictModes no",
    "UsePAM no",
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication no",
    "PermitRootLogin yes",
    "UseDNS no",
    `SetEnv ${Object.entries(variables).map(([name, value]) => `${name}=${value}`).join(" ")}`,
    "",
  ].join("\n");
}

/** Nobody listens there now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
