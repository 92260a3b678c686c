/**
 * Hosts for tests: namespaces of this machine, each with its own network, processes, host name, users, ssh
 * server and keys, and folders for dlsm, on one switch. Needs root, `programsOfHosts`, and no kernel module.
 *
 *     const withHosts = needing(test, programsOfHosts, { root: true });
 *     withHosts("…", async () => {
 *       await withNetwork(["node1", "node2"], async ({ node1, node2 }, net) => {
 *         await node1.ok("migrate", node1.path("a.img"), `root@node2:${node2.path("b.img")}`);
 *         await net.cut(node2, "drop");
 *         …
 *       });
 *     });
 *
 * The machine's files are shared, but a host's folder is there on that host only. Names are the hosts' own
 * (/etc/hosts); each can log in as root to each, with host keys that it knows.
 */
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { tempFolder } from "../temp.ts";
import { prepareFolders } from "./folder.ts";
import { TestHost } from "./host.ts";
import { Namespace } from "./namespace.ts";

export { type Counters, TestHost } from "./host.ts";
export type { HostProcess, Running, RunOptions } from "./namespace.ts";

export const programsOfHosts = ["unshare", "nsenter", "ip", "bridge", "ssh", "ssh-keygen", "sshd"];
export const hasIpv6 = existsSync("/proc/net/if_inet6");

/** "down": the cable is out, and the host sees it. "drop": nothing gets through, and nobody is told. */
export type Cut = "down" | "drop";

export class TestNetwork {
  readonly folder: string;
  readonly hosts: readonly TestHost[];
  readonly #switch: Namespace;

  private constructor(folder: string, hosts: readonly TestHost[], wires: Namespace) {
    this.folder = folder;
    this.hosts = hosts;
    this.#switch = wires;
  }

  /** `family`: the addresses that the hosts have; only these. */
  static async make(names: readonly string[], options: { family?: 4 | 6 } = {}): Promise<TestNetwork> {
    const folder = tempFolder("n");
    const plans = names.map((name, at) => {
      mkdirSync(join(folder, name), { mode: 0o700 });
      return { name, folder: join(folder, name), addresses: [addressOf(at, options.family ?? 4)] };
    });
    const prepared = await prepareFolders(plans);
    const started = await Promise.allSettled([
      Namespace.start("", [], { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" }),
      ...prepared.map((host) =>
        TestHost.start(host, plans.filter(({ name }) => name !== host.name).map(({ folder }) => folder))
      ),
    ]);
    const [wires, ...hosts] = started.map((one) => one.status === "fulfilled" ? one.value : undefined);
    const net = new TestNetwork(folder, hosts as TestHost[], wires as Namespace);
    try {
      for (const one of started) if (one.status === "rejected") throw one.reason;
      await net.#connect();
      await Promise.all(net.hosts.map((host) => host.startSshd()));
      return net;
    } catch (error) {
      await net.close();
      throw error;
    }
  }

  host(name: string): TestHost {
    const host = this.hosts.find((one) => one.name === name);
    if (host === undefined) throw new Error(`no host ${name}`);
    return host;
  }

  /** Nothing gets from the host or to it; connections stay as they are. */
  async cut(host: TestHost, how: Cut): Promise<void> {
    const port = this.#port(host);
    if (how === "down") await this.#onSwitch("ip", "link", "set", port, "down");
    else await this.#onSwitch("bridge", "link", "set", "dev", port, "state", String(bridgeState.disabled));
  }

  /** Undoes `cut`, however it was cut. */
  async restore(host: TestHost): Promise<void> {
    const port = this.#port(host);
    await this.#onSwitch("ip", "link", "set", port, "up");
    await this.#onSwitch("bridge", "link", "set", "dev", port, "state", String(bridgeState.forwarding));
  }

  /** A firewall on the host: TCP to these of its ports gets no answer, without a word (none gets out). */
  async block(host: TestHost, firstPort: number, lastPort = firstPort): Promise<void> {
    await this.#rules(host, "add", firstPort, lastPort);
  }

  async unblock(host: TestHost, firstPort: number, lastPort = firstPort): Promise<void> {
    await this.#rules(host, "del", firstPort, lastPort);
  }

  /** Ends every process of every host; the kernel takes their interfaces and mounts away with them. */
  async close(): Promise<void> {
    const spaces = [...this.hosts.map((host) => host?.space), this.#switch];
    await Promise.all(spaces.map((space) => space?.close()));
    // A source may still be fenced, with the flag that root obeys as well.
    await execa("chattr", ["-R", "-f", "-i", this.folder], { reject: false });
    rmSync(this.folder, { recursive: true, force: true });
  }

  async #connect(): Promise<void> {
    const lines = ["link add br0 type bridge", "link set br0 up"];
    for (const [at, host] of this.hosts.entries()) {
      const peer = `peer name eth0 address ${hardwareAddress(at)} netns ${host.space.pid}`;
      lines.push(`link add ${this.#port(host)} type veth ${peer}`);
      lines.push(`link set ${this.#port(host)} master br0 up`);
    }
    await this.#switch.ip(lines);
    await Promise.all(this.hosts.map((host, at) => host.space.ip(this.#linesOf(host, at))));
  }

  /** Neighbours are known from the start: when a link is cut, nobody asks for them and is told by silence. */
  #linesOf(host: TestHost, at: number): string[] {
    const bits = host.address.includes(":") ? "64 nodad" : "24";
    const neighbours = this.hosts.map(({ address }, other) =>
      `neigh replace ${address} lladdr ${hardwareAddress(other)} dev eth0 nud permanent`
    ).filter((_, other) => other !== at);
    return [`address add ${host.address}/${bits} dev eth0`, "link set eth0 up", ...neighbours];
  }

  async #rules(host: TestHost, verb: "add" | "del", first: number, last: number): Promise<void> {
    const family = host.address.includes(":") ? "-6" : "-4";
    await host.space.ip([`rule ${verb} ipproto tcp sport ${first}-${last} blackhole`], family);
  }

  async #onSwitch(program: string, ...args: string[]): Promise<void> {
    const { exitCode, stderr } = await this.#switch.run(program, args);
    if (exitCode !== 0) throw new Error(`${program} ${args.join(" ")}: ${stderr}`);
  }

  #port(host: TestHost): string {
    return `port${this.hosts.indexOf(host)}`;
  }
}

/** Of a port, in Linux' bridge (IEEE 802.1D). */
const bridgeState = { disabled: 0, forwarding: 3 } as const;

function addressOf(at: number, family: 4 | 6): string {
  return family === 4 ? `10.77.0.${at + 1}` : `fd77::${at + 1}`;
}

function hardwareAddress(at: number): string {
  return `02:77:00:00:00:${String(at + 1).padStart(2, "0")}`;
}

/** A network for the body; it is gone afterwards, however that ends. */
export async function withNetwork<Name extends string>(
  names: readonly Name[],
  body: (hosts: Record<Name, TestHost>, net: TestNetwork) => Promise<void>,
  options: { family?: 4 | 6 } = {},
): Promise<void> {
  const net = await TestNetwork.make(names, options);
  try {
    const hosts = Object.fromEntries(net.hosts.map((host) => [host.name, host])) as Record<Name, TestHost>;
    await body(hosts, net);
  } finally {
    await net.close();
  }
}
