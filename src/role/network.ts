/** How this host's network leads to another host: questions that change nothing. */
import { connect } from "node:net";
import { execa } from "execa";
import { errnoCode, messageOf } from "../lib/errors.ts";
import { findProgram } from "../lib/program.ts";
import type { HostReplies } from "./host-messages.ts";

type Route = HostReplies["host.route"];
type Probe = HostReplies["host.probe"];

const routeTimeoutMs = 5000;

/** The way of packets to `to`, a literal address, as the kernel decides it; nothing is sent. Never rejects. */
export async function findRoute(to: string): Promise<Route> {
  if (/^fe[89ab]/i.test(to)) {
    return noRoute(`${to} is a link-local address, which means nothing on another host`);
  }
  const ip = findProgram("ip");
  if (ip === undefined) return noRoute("the program ip is not installed (package iproute2)");
  // Text, not JSON: that is all that small systems' ip can do.
  const { exitCode, stdout, stderr, shortMessage } = await execa(ip, ["route", "get", to], {
    timeout: routeTimeoutMs,
    env: { LC_ALL: "C" },
    reject: false,
  });
  const sourceAddress = / src (\S+)/.exec(stdout)?.[1];
  if (exitCode === 0 && sourceAddress !== undefined) return { sourceAddress, problem: null };
  const words = stderr.trim().replace(/^RTNETLINK answers: /, "") || stdout.trim() || shortMessage;
  return noRoute(`there is no route to ${to} (${words})`);
}

function noRoute(problem: string): Route {
  return { sourceAddress: null, problem };
}

/** Whether a TCP connection to this portal can be made. Never rejects. */
export function probePortal(address: string, port: number, timeoutMs: number): Promise<Probe> {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port });
    const finish = (problem: string | null) => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ problem });
    };
    const timer = setTimeout(() => finish(silence(address, port)), timeoutMs);
    socket.on("connect", () => finish(null));
    socket.on("error", (error) => finish(describe(error, address, port)));
  });
}

const silence = (address: string, port: number) =>
  `no answer from ${address} port ${port}: a firewall drops the connection, or the address is not on this network`;

function describe(error: Error, address: string, port: number): string {
  const portal = `${address} port ${port}`;
  switch (errnoCode(error)) {
    case "ECONNREFUSED":
      return `nothing listens at ${portal}, or a firewall rejects the connection`;
    case "ETIMEDOUT":
      return silence(address, port);
    case "EHOSTUNREACH":
      return `no route to the host of ${portal}: it is down, not on this network, or a firewall rejects the connection`;
    case "ENETUNREACH":
      return `the network of ${portal} is unreachable: this host has no route to it`;
    case "EACCES":
      return `this host does not let connections to ${portal} out`;
    default:
      return `no connection to ${portal}: ${messageOf(error)}`;
  }
}
