/** The files that make a folder a host: keys, users, names, the ssh server's configuration, `dlsm` itself. */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { selfCommand } from "../../../src/lib/self.ts";

export interface HostPlan {
  readonly name: string;
  readonly folder: string;
  /** Those that it is known and reached by. */
  readonly addresses: readonly string[];
}

export interface PreparedHost extends HostPlan {
  readonly env: Readonly<Record<string, string>>;
}

const mode = 0o700;
/** Those the host has for itself; each hides the machine's. */
export const ownFiles = ["/etc/passwd", "/etc/shadow", "/etc/hosts"];

/** Makes the folders of all hosts of a test: each can log in to each as root. */
export async function prepareFolders(plans: readonly HostPlan[]): Promise<PreparedHost[]> {
  const keys = await Promise.all(plans.map(makeKeys));
  const authorized = keys.map(({ user }) => user).join("\n");
  const known = plans.map(({ name, addresses }, at) => `${[name, ...addresses].join(",")} ${keys[at]!.host}`);
  const names = ["127.0.0.1 localhost", "::1 localhost"].concat(
    plans.flatMap(({ name, addresses }) => addresses.map((address) => `${address} ${name}`)),
  );
  return plans.map((plan) => {
    const { folder } = plan;
    const ssh = join(folder, "home", ".ssh");
    writeFileSync(join(ssh, "authorized_keys"), `${authorized}\n`, { mode: 0o600 });
    writeFileSync(join(ssh, "known_hosts"), `${known.join("\n")}\n`, { mode: 0o600 });
    writeFileSync(join(folder, "etc", "hosts"), `${names.join("\n")}\n`);
    writeUsers(folder);
    writeDlsm(join(folder, "bin", "dlsm"));
    const env = environment(folder);
    writeFileSync(join(folder, "etc", "sshd_config"), sshdConfig(plan, env));
    return { ...plan, env };
  });
}

async function makeKeys({ name, folder }: HostPlan): Promise<{ user: string; host: string }> {
  for (const part of ["etc", "bin", "tmp", "home/.ssh"]) {
    mkdirSync(join(folder, part), { recursive: true, mode });
  }
  const make = async (path: string, comment: string) => {
    await execa("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path]);
    return readFileSync(`${path}.pub`, "utf8").trim();
  };
  const [user, host] = await Promise.all([
    make(join(folder, "home", ".ssh", "id_ed25519"), `root@${name}`),
    make(join(folder, "etc", "host_key"), name),
  ]);
  return { user, host };
}

/** The machine's users, but root has its home in the host's folder, and a plain shell. */
function writeUsers(folder: string): void {
  const others = (path: string) =>
    readFileSync(path, "utf8").split("\n").filter((line) => !/^root:/.test(line));
  const root = `root:x:0:0:root:${join(folder, "home")}:/bin/sh`;
  writeFileSync(join(folder, "etc", "passwd"), [root, ...others("/etc/passwd")].join("\n"));
  const noPassword = "root:*:19000:0:99999:7:::";
  writeFileSync(join(folder, "etc", "shadow"), [noPassword, ...others("/etc/shadow")].join("\n"), {
    mode: 0o600,
  });
}

/** This source tree, run by what runs the test. */
function writeDlsm(path: string): void {
  const { program, args } = selfCommand([]);
  const words = [program, ...args].map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
  writeFileSync(path, `#!/bin/sh\nexec ${words} "$@"\n`);
  chmodSync(path, 0o755);
}

function environment(folder: string): Record<string, string> {
  const { NODE_COMPILE_CACHE, DENO_DIR, HOME } = process.env;
  return {
    PATH: `${join(folder, "bin")}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    HOME: join(folder, "home"),
    TMPDIR: join(folder, "tmp"),
    DLSM_STATE_DIR: join(folder, "state"),
    DLSM_RUN_DIR: join(folder, "run"),
    NO_COLOR: "1",
    LANG: "C.UTF-8",
    // What is compiled already: a start from source costs mostly that.
    DENO_DIR: DENO_DIR ?? join(HOME ?? "/root", ".cache", "deno"),
    ...(NODE_COMPILE_CACHE === undefined ? {} : { NODE_COMPILE_CACHE }),
  };
}

function sshdConfig({ folder, addresses }: HostPlan, env: Readonly<Record<string, string>>): string {
  return [
    ...addresses.map((address) => `ListenAddress ${address.includes(":") ? `[${address}]` : address}`),
    "Port 22",
    `HostKey ${join(folder, "etc", "host_key")}`,
    `AuthorizedKeysFile ${join(folder, "home", ".ssh", "authorized_keys")}`,
    `PidFile ${join(folder, "etc", "sshd.pid")}`,
    "UsePAM no",
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication no",
    "UseDNS no",
    "MaxStartups 100",
    `SetEnv ${Object.entries(env).map(([name, value]) => `${name}=${value}`).join(" ")}`,
    "",
  ].join("\n");
}
