/**
 * A real ssh server on 127.0.0.1 that this process can log in to, without a machine of its own (for that there
 * are hosts/). While it runs, `ssh` on this process' PATH knows it, and nothing else, as `destination`.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { userInfo } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { findProgram, isRoot } from "./needs.ts";
import { tempFolder } from "./temp.ts";

export const programsOfSshd = ["ssh", "ssh-keygen", "sshd"];

export class Sshd {
  readonly destination = "far";
  readonly #folder: string;
  readonly #port: number;
  #daemon: ChildProcess | undefined;

  private constructor(folder: string, port: number) {
    this.#folder = folder;
    this.#port = port;
  }

  /** `extra`: lines that go before the others and win. */
  static async start(extra: readonly string[] = []): Promise<Sshd> {
    const sshd = new Sshd(tempFolder("sshd"), await freePort());
    sshd.#prepare();
    await sshd.restart(extra);
    return sshd;
  }

  #prepare(): void {
    const file = (name: string) => join(this.#folder, name);
    for (const name of ["host_key", "user_key"]) {
      execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", file(name)]);
    }
    this.knowHostKey("host_key");
    writeFileSync(
      file("ssh_config"),
      `Host ${this.destination}
HostName 127.0.0.1
Port ${this.#port}
User ${userInfo().username}
IdentityFile ${file("user_key")}
IdentitiesOnly yes
UserKnownHostsFile ${file("known_hosts")}
GlobalKnownHostsFile none
`,
    );
    mkdirSync(file("bin"));
    writeFileSync(file("bin/ssh"), `#!/bin/sh\nexec ${findProgram("ssh")} -F ${file("ssh_config")} "$@"\n`, {
      mode: 0o755,
    });
    process.env.PATH = file("bin") + delimiter + process.env.PATH;
    // The folder in which its processes without rights live; the distribution's service makes it.
    if (isRoot && !existsSync("/run/sshd")) mkdirSync("/run/sshd", { mode: 0o755 });
  }

  /** Lines of the user's configuration for this destination; they go before the others and win. */
  configureClient(lines: readonly string[]): void {
    const path = join(this.#folder, "ssh_config");
    const host = `Host ${this.destination}\n`;
    writeFileSync(path, readFileSync(path, "utf8").replace(host, `${host}${lines.join("\n")}\n`));
  }

  /** A path for a file of the test. */
  path(name: string): string {
    return join(this.#folder, name);
  }

  /** Which key of its folder the client takes for the server's; undefined: it knows none. */
  knowHostKey(name: string | undefined): void {
    const key = name === undefined ? "" : readFileSync(join(this.#folder, `${name}.pub`), "utf8");
    const line = name === undefined ? "" : `[127.0.0.1]:${this.#port} ${key.split(" ", 2).join(" ")}\n`;
    writeFileSync(join(this.#folder, "known_hosts"), line);
  }

  async restart(extra: readonly string[] = []): Promise<void> {
    await this.stop();
    const config = join(this.#folder, "sshd_config");
    writeFileSync(
      config,
      `${extra.join("\n")}
Port ${this.#port}
ListenAddress 127.0.0.1
HostKey ${join(this.#folder, "host_key")}
AuthorizedKeysFile ${join(this.#folder, "user_key.pub")}
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
MaxStartups 100
`,
    );
    const daemon = spawn(findProgram("sshd")!, ["-D", "-f", config, "-E", join(this.#folder, "log")], {
      stdio: "ignore",
    });
    this.#daemon = daemon;
    const deadline = performance.now() + 10_000;
    while (!await accepts(this.#port)) {
      if (daemon.exitCode !== null || performance.now() > deadline) {
        throw new Error(`sshd does not listen: ${readFileSync(join(this.#folder, "log"), "utf8")}`);
      }
      await sleep(10);
    }
  }

  /** Nobody can log in any more; who is stays. */
  async stop(): Promise<void> {
    const daemon = this.#daemon;
    this.#daemon = undefined;
    if (daemon === undefined || daemon.exitCode !== null) return;
    const ended = new Promise((resolve) => daemon.once("exit", resolve));
    daemon.kill("SIGKILL");
    await ended;
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    const finish = (isUp: boolean) => {
      socket.destroy();
      resolve(isUp);
    };
    socket.once("connect", () => finish(true));
    socket.once("error", () => finish(false));
  });
}

function freePort(): Promise<number> {
  const server = createServer();
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}
