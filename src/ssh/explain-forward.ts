/** Why a connection through another host was not made, in words that help. Pure. */
import { type Ended, explainEnd, type Problem } from "./explain.ts";

interface Sign {
  readonly pattern: RegExp;
  message(host: string, match: RegExpExecArray): string;
  hint(host: string): string;
}

/** What ssh says of the channel; all else is about the connection to the host itself. */
const signs: readonly Sign[] = [
  {
    pattern: /open failed: administratively prohibited/,
    message: (host) => `the sshd of ${host} does not allow forwarding to this address`,
    hint: (host) =>
      `see AllowTcpForwarding and PermitOpen in sshd_config on ${host}, and the key's options there`,
  },
  {
    pattern: /open failed: connect failed: Connection refused/,
    message: (host) => `nothing listens at this address on ${host} (connection refused)`,
    hint: (host) => `see whether the export on ${host} is up: dlsm resume sets it up again`,
  },
  {
    pattern: /open failed: (?:connect failed: )?([^\n]+)/,
    message: (host, [, words]) => `${host} cannot connect to this address: ${words}`,
    hint: (host) => `check the address as ${host} sees it`,
  },
  {
    pattern: /Timeout, server \S+ not responding/,
    message: (host) => `${host} fell silent`,
    hint: (host) => `check that ${host} is up and the network on the way`,
  },
];

/** Undefined if the connection was closed in good order. */
export function explainForward(host: string, ended: Ended): Problem | undefined {
  if (ended.exitCode === 0) return undefined;
  const text = ended.lines.join("\n");
  for (const { pattern, message, hint } of signs) {
    const match = pattern.exec(text);
    if (match !== null) return { kind: "network", message: message(host, match), hint: hint(host) };
  }
  return explainEnd(host, ended, false);
}
