/** Why ssh ended, in words that help. Pure. */

/** What kind of trouble; "command": the remote command ended with an error of its own. */
export type ProblemKind =
  | "host-key"
  | "permission"
  | "name"
  | "network"
  | "configuration"
  | "missing"
  | "too-old"
  | "command"
  | "lost";

export interface Problem {
  readonly kind: ProblemKind;
  /** One sentence, with the host. */
  readonly message: string;
  readonly hint: string;
}

/** How ssh ended. */
export interface Ended {
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly lines: readonly string[];
  /** It was ended from here, so that how it ended says nothing. */
  readonly wasKilled?: boolean;
}

interface Sign {
  readonly kind: ProblemKind;
  readonly pattern: RegExp;
  message(host: string, match: RegExpExecArray, isInteractive: boolean): string;
  hint(host: string, isInteractive: boolean): string;
}

const checkNetwork = (host: string) => `check that ${host} is up and that ssh ${host} works from here`;

/** `methods` as the server names those that are left; undefined: it had enough. */
function whyNot(methods: string | undefined, isInteractive: boolean): string {
  if (methods === undefined) return "too many keys were tried";
  if (!/password|keyboard/.test(methods)) return "no key or agent was accepted";
  return isInteractive
    ? "no key, agent or password was accepted"
    : "no key or agent was accepted, and there is no terminal to ask for a password";
}

/** In this order: ssh ends with "Host key verification failed." or "Permission denied" after what explains it. */
const signs: readonly Sign[] = [
  {
    kind: "host-key",
    pattern: /REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for \S+ has changed/,
    message: (host) => `the host key of ${host} is not the one that is known for it`,
    hint: (host) =>
      `it may be another machine that answers: ask whoever runs ${host} for the fingerprint of its key; only ` +
      "if the new one is right, take the old one out with ssh-keygen -R and connect once by hand",
  },
  {
    kind: "host-key",
    pattern: /Host key verification failed|No \S+ host key is known/,
    message: (host) => `the host key of ${host} is not known here`,
    hint: (host) => `connect once by hand (ssh ${host}), compare the fingerprint, and accept it`,
  },
  {
    kind: "permission",
    pattern: /Permission denied \(([^)]*)\)|Too many authentication failures/,
    message: (host, match, isInteractive) =>
      `ssh may not log in to ${host}: ${whyNot(match[1], isInteractive)}`,
    hint: (host) => `give this user a key that is in ${host}'s authorized_keys, or load it into an ssh agent`,
  },
  {
    kind: "name",
    pattern: /Could not resolve hostname (.*)/,
    message: (host, match) => `the name of ${host} cannot be resolved (${match[1]})`,
    hint: () => "check the spelling, /etc/hosts and the DNS, or add it to ~/.ssh/config",
  },
  {
    kind: "network",
    pattern: /^(?:ssh: )?(.*Connection refused.*)/m,
    message: (host, match) => `${host} refuses the ssh connection (${match[1]})`,
    hint: (host) => `check that sshd runs on ${host}, and on which port`,
  },
  {
    kind: "network",
    pattern: /^(?:ssh: )?(.*timed out.*)/m,
    message: (host, match) => `${host} does not answer (${match[1]})`,
    hint: (host) => `check that ${host} is up, its address, and firewalls on the way`,
  },
  {
    kind: "network",
    pattern: /^(?:ssh: )?(.*No route to host.*)/m,
    message: (host, match) => `there is no route to ${host}, or it is down (${match[1]})`,
    hint: checkNetwork,
  },
  {
    kind: "network",
    pattern: /^(?:ssh: )?(.*Network is unreachable.*)/m,
    message: (host, match) => `the network of ${host} cannot be reached from here (${match[1]})`,
    hint: () => "check the addresses and routes of this host (ip route)",
  },
  {
    kind: "configuration",
    pattern:
      // From the start of a line only: the far side may say what would be tried from everywhere.
      /^(.*Bad owner or permissions on .*|.*: terminating, \d+ bad configuration options|.*Bad configuration option:? .*|.* line \d+: .*(?:[Bb]ad|[Mm]issing|[Uu]nsupported) .*)/m,
    message: (host, match) => `ssh cannot use its configuration to reach ${host}: ${match[1]}`,
    hint: () => "mend what ssh complains about",
  },
  {
    kind: "network",
    pattern:
      /(kex_exchange_identification: .*|Connection (?:closed|reset) by .*|Unable to negotiate with .*)/,
    message: (host, match) => `the ssh connection to ${host} was not accepted: ${match[1]}`,
    hint: checkNetwork,
  },
];

const sshFailed = 255;
const notFound = 127;
const notExecutable = 126;

/** Undefined if ssh and the remote command ended in good order, or without a word about why not. */
export function explainEnd(host: string, ended: Ended, isInteractive: boolean): Problem | undefined {
  const { exitCode, signal, lines } = ended;
  if (exitCode === 0 || ended.wasKilled === true) return undefined;
  const text = lines.join("\n");
  if (exitCode === sshFailed) return explainSsh(host, text, isInteractive);
  if (exitCode === null) {
    return {
      kind: "lost",
      message: signal === null ? last(lines) : `ssh to ${host} was ended by ${signal}`,
      hint: checkNetwork(host),
    };
  }
  if (exitCode === notFound || exitCode === notExecutable) {
    return {
      kind: "missing",
      message: `dlsm cannot be run on ${host}: ${last(lines) || "it is not there"}`,
      hint: `install dlsm on ${host} in a folder that is in PATH for commands run over ssh, or use --deploy`,
    };
  }
  if (/there is no command "role"/.test(text)) {
    return {
      kind: "too-old",
      message: `the dlsm on ${host} is too old to work with this one`,
      hint: `install the same version of dlsm on ${host}, or use --deploy`,
    };
  }
  return explainCommand(host, lines);
}

/** What ssh says when a connection that was up is lost; the far side's own words are among the lines as well. */
const farewell =
  /^(?:client_loop:|Connection (?:to|closed|reset)|Timeout, server|Read from remote host|packet_write|ssh_dispatch|mux_client)/;

/** How a conversation that was under way ended, as far as ssh knows; undefined: not. */
export function explainLoss(host: string, ended: Ended): string | undefined {
  const { exitCode, signal, lines, wasKilled } = ended;
  if (wasKilled === true) return undefined;
  if (exitCode === null) return signal === null ? undefined : `ssh was ended by ${signal}`;
  const problem = exitCode === sshFailed ? undefined : explainCommand(host, lines);
  if (problem !== undefined) return problem.message;
  const words = lines.findLast((line) => farewell.test(line));
  if (words !== undefined) return words;
  // sshd does not pass on by which signal.
  return exitCode === sshFailed ? `dlsm or sshd on ${host} was killed` : `dlsm on ${host} ended`;
}

function explainSsh(host: string, text: string, isInteractive: boolean): Problem {
  for (const sign of signs) {
    const match = sign.pattern.exec(text);
    if (match === null) continue;
    return {
      kind: sign.kind,
      message: sign.message(host, match, isInteractive),
      hint: sign.hint(host, isInteractive),
    };
  }
  const words = last(text.split("\n"));
  return {
    kind: "lost",
    message: `ssh to ${host} failed${words === "" ? "" : `: ${words}`}`,
    hint: checkNetwork(host),
  };
}

/** The remote dlsm prints "error: MESSAGE", and what to do on an indented line. */
function explainCommand(host: string, lines: readonly string[]): Problem | undefined {
  const at = lines.findLastIndex((line) => line.startsWith("error: "));
  if (at === -1) return undefined;
  const hint = lines[at + 1]?.startsWith("  ") ? lines[at + 1].trim() : undefined;
  return {
    kind: "command",
    message: `dlsm on ${host} ended with an error: ${lines[at].slice("error: ".length)}`,
    hint: hint === undefined ? `see to it on ${host}` : `on ${host}: ${hint}`,
  };
}

function last(lines: readonly string[]): string {
  return lines.findLast((line) => line.trim() !== "")?.trim() ?? "";
}
