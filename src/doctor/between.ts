/** What is between hosts: ssh, the way to a portal, the clocks. */
import { userInfo } from "node:os";
import type { Host, HostFacts } from "../role/mod.ts";
import { type HostFinding, of } from "./finding.ts";

export interface Reached {
  readonly name: string;
  readonly host: Host;
  readonly facts: HostFacts;
}

/** More than this is told: times in logs and status cannot be compared then. */
const maxSkewMs = 2_000;
const clockQuestions = 3;
const probeTimeoutMs = 5_000;
/** Longer than the probe, which may have to wait for its turn. */
const portOpenMs = 20_000;

/** How far its clock is from this one's: the answer that came back fastest counts. */
export async function askClock({ name, host }: Reached): Promise<HostFinding[]> {
  if (host.reach === null) return [];
  let best = { skewMs: 0, roundTripMs: Infinity };
  for (let asked = 0; asked < clockQuestions; asked++) {
    const before = Date.now();
    const askedAtMs = performance.now();
    const { nowMs } = await host.ask("host.clock", {});
    const roundTripMs = performance.now() - askedAtMs;
    if (roundTripMs < best.roundTripMs) best = { skewMs: skewOf(before, roundTripMs, nowMs), roundTripMs };
  }
  return [clockFinding(name, best.skewMs)];
}

/** The answer was given half-way, as far as can be told. */
export function skewOf(askedAtMs: number, roundTripMs: number, theirMs: number): number {
  return theirMs - (askedAtMs + roundTripMs / 2);
}

export function clockFinding(name: string, skewMs: number): HostFinding {
  const seconds = (Math.abs(skewMs) / 1000).toFixed(1);
  const common = { check: "clock", subject: name, cleanable: false };
  if (Math.abs(skewMs) <= maxSkewMs) {
    const message = `its clock and this machine's are less than ${maxSkewMs / 1000} s apart`;
    return of(name, { ...common, level: "ok", message, remedy: null });
  }
  return of(name, {
    ...common,
    level: "note",
    message: `its clock is ${seconds} s ${
      skewMs > 0 ? "ahead of" : "behind"
    } this machine's: times in logs and status cannot be compared`,
    remedy: "set the clocks by NTP (timedatectl set-ntp true)",
  });
}

/** Whether this host reaches the others, by ssh and by the way that a portal takes. */
export async function askBetween(
  from: Reached,
  others: readonly Reached[],
  asked: readonly { readonly host: Host }[],
): Promise<HostFinding[]> {
  const isThisMachineAsked = asked.some(({ host }) => host.reach === null);
  const found = await Promise.all([
    ...others.filter(({ host }) => host.reach !== null).map((to) => askSsh(from, to.host.reach!, false)),
    ...(isThisMachineAsked ? [] : wayBack(from).map((reach) => askSsh(from, reach, true))),
    ...others.filter((to) => !isSameMachine(from, to)).map((to) => askPortal(from, to)),
  ]);
  return found.flat();
}

/** How this machine may be named there, as far as can be known: this user at the address it comes from. */
function wayBack({ host, facts }: Reached): string[] {
  if (host.reach === null || facts.ssh === null) return [];
  return [`${userInfo().username}@${facts.ssh.clientAddress}`];
}

async function askSsh({ name, host }: Reached, reach: string, isBack: boolean): Promise<HostFinding[]> {
  const { problem } = await host.ask("host.reachSsh", { destination: reach });
  const common = { check: "ssh-between", subject: reach, cleanable: false };
  const other = isBack ? `this machine (${reach})` : reach;
  if (problem === null) {
    return [of(name, { ...common, level: "ok", message: `it reaches ${other} by ssh`, remedy: null })];
  }
  return [of(name, {
    ...common,
    level: "note",
    message: `it does not reach ${other} by ssh: ${problem}`,
    remedy:
      `if a disk is to move from ${reach} to here: let it log in there without a question (ssh-copy-id, ` +
      "known_hosts); else --tunnel cannot be used, and the source is released by dlsm resume only",
  })];
}

/** A port is opened on `to` for a moment, and `from` connects to it as an engine does to a portal. */
async function askPortal(from: Reached, to: Reached): Promise<HostFinding[]> {
  const address = to.facts.ssh?.serverAddress;
  if (address === undefined) return [];
  const { port, problem: closed } = await to.host.ask("host.openPort", { address, forMs: portOpenMs });
  if (port === null) return [portalFinding(from, to, `no port can be opened at ${address}: ${closed}`)];
  const { problem } = await from.host.ask("host.probe", { address, port, timeoutMs: probeTimeoutMs });
  return [portalFinding(from, to, problem)];
}

function portalFinding(from: Reached, to: Reached, problem: string | null): HostFinding {
  const common = { check: "portal", subject: to.name, cleanable: false };
  if (problem === null) {
    const message = `it reaches a port of ${to.name} (${to.facts.ssh?.serverAddress}) directly`;
    return of(from.name, { ...common, level: "ok", message, remedy: null });
  }
  return of(from.name, {
    ...common,
    level: "note",
    message: `it cannot read a disk of ${to.name} directly: ${problem}`,
    remedy: "open one port there and name it with --portal ADDRESS:PORT, or use --tunnel",
  });
}

function isSameMachine(one: Reached, other: Reached): boolean {
  return one.facts.bootId === other.facts.bootId && one.facts.networkId === other.facts.networkId;
}
