/** How the destination will reach the source: the portal's address, the one that may log in, and the ways of ssh. */
import { isIP } from "node:net";
import { PreconditionError } from "../lib/errors.ts";
import type { Host, HostFacts, NetworkPlan } from "../role/mod.ts";
import type { Context } from "./context.ts";

export interface NetworkWishes {
  /** Where the source shall listen; port 0: any that is free. Null: its address on the route to the destination. */
  readonly portal: { readonly address: string; readonly port: number } | null;
  /** Send the data through ssh, from the destination to the source. */
  readonly tunnel: boolean;
}

export interface ChosenNetwork {
  readonly network: NetworkPlan;
  /** How the destination may reach the source by ssh, and the other way round; null: nobody knows, or they are one host. */
  readonly sourceReach: string | null;
  readonly destinationReach: string | null;
}

const loopback = "127.0.0.1";

export async function chooseNetwork(
  { source, destination }: Context,
  { portal, tunnel }: NetworkWishes,
): Promise<ChosenNetwork> {
  const [from, to] = [await source.facts(), await destination.facts()];
  const isSame = source === destination;
  const sourceReach = isSame ? null : source.reach ?? reachOf(from, to.ssh?.clientAddress);
  const destinationReach = isSame ? null : destination.reach ?? reachOf(to, from.ssh?.clientAddress);
  // Also with two state folders, which are two hosts.
  if (from.bootId === to.bootId && from.networkId === to.networkId) {
    const address = portal?.address ?? loopback;
    const { sourceAddress } = await destination.ask("host.route", { to: address });
    return {
      network: { portal: portal ?? { address, port: 0 }, allow: sourceAddress ?? address, tunnel: null },
      sourceReach,
      destinationReach,
    };
  }
  if (tunnel) {
    if (sourceReach === null) throw unknownWay(from, to);
    await requireTunnel(destination, from, to, sourceReach);
    const network = {
      portal: portal ?? { address: loopback, port: 0 },
      allow: portal?.address ?? loopback,
      tunnel: sourceReach,
    };
    return { network, sourceReach, destinationReach };
  }
  const listening = portal ?? { address: await portalAddress(source, from, to), port: 0 };
  const { sourceAddress, problem } = await destination.ask("host.route", { to: listening.address });
  if (sourceAddress === null) {
    throw new PreconditionError(
      `${to.hostname} has no route to the source's address ${listening.address}: ${problem}`,
      { hint: "name an address of the source that the destination can reach with --portal, or use --tunnel" },
    );
  }
  return {
    network: { portal: { ...listening }, allow: sourceAddress, tunnel: null },
    sourceReach,
    destinationReach,
  };
}

/**
 * The source's address on the route to the destination. What is known of the destination is the address at
 * which this command's ssh found it or, when it runs there itself, the one from which its ssh came.
 */
async function portalAddress(source: Host, from: HostFacts, to: HostFacts): Promise<string> {
  const known = to.ssh?.serverAddress ?? from.ssh?.clientAddress;
  if (known === undefined || isLoopback(known)) throw unknownWay(from, to);
  const { sourceAddress, problem } = await source.ask("host.route", { to: known });
  if (sourceAddress !== null) return sourceAddress;
  throw new PreconditionError(`${from.hostname} has no route to ${to.hostname} (${known}): ${problem}`, {
    hint: "connect the two hosts, or name an address of the source with --portal",
  });
}

async function requireTunnel(
  destination: Host,
  from: HostFacts,
  to: HostFacts,
  sourceReach: string,
): Promise<void> {
  const { problem, hostId, hostname } = await destination.ask("host.reachSsh", { destination: sourceReach });
  if (problem === null && hostId === from.hostId) return;
  if (problem === null) {
    throw new PreconditionError(
      `--tunnel: from ${to.hostname}, ${sourceReach} is not the source's host ${from.hostname}, but ${hostname}`,
      { hint: "name the source by a name that stands for the same host here and there" },
    );
  }
  throw new PreconditionError(
    `--tunnel: ${to.hostname} cannot reach the source as ${sourceReach} by ssh: ${problem}`,
    { hint: `make "ssh ${sourceReach}" work there without a password: a key, and the source in known_hosts` },
  );
}

/** The way back to the host where this command runs. */
function reachOf({ user }: HostFacts, address: string | undefined): string | null {
  return address === undefined || isIP(address) === 0 ? null : `${user}@${address}`;
}

function unknownWay(from: HostFacts, to: HostFacts): PreconditionError {
  return new PreconditionError(
    `the addresses by which ${to.hostname} can reach ${from.hostname} cannot be told from here`,
    { hint: "name the source's address with --portal" },
  );
}

function isLoopback(address: string): boolean {
  return address === "::1" || address.startsWith("127.");
}
