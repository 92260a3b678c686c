/** How ssh is called: the destination as a user names it, and the arguments. Pure. */
import { UsageError } from "../lib/errors.ts";

/**
 * Throws UsageError for what cannot name a host: ssh would take it for an option, or hand it to a program of
 * the user's configuration (ProxyCommand) in which it means something else.
 */
export function checkDestination(destination: string): void {
  const refuse = (problem: string) =>
    new UsageError(`${JSON.stringify(destination)} cannot be a host for ssh: ${problem}`, {
      hint: "name it as for ssh: HOST, USER@HOST, or a name from ~/.ssh/config",
    });
  if (destination === "" || destination.endsWith("@")) throw refuse("there is no host in it");
  // ssh takes what follows the last @ for the host, and looks at that once more for options.
  const host = destination.slice(destination.lastIndexOf("@") + 1).replace(/^ssh:\/\//, "");
  if (destination.startsWith("-") || host.startsWith("-")) throw refuse("it begins with a dash");
  if (destination.length > 255) throw refuse("it is longer than 255 characters");
  // deno-lint-ignore no-control-regex
  if (/[\s\x00-\x1f\x7f-\x9f]/.test(destination)) throw refuse("it holds spaces or control characters");
  const strange = /["'`$\\;&<>|(){}*?!#]/.exec(destination);
  if (strange !== null) throw refuse(`it holds ${strange[0]}`);
}

/** Whether it can name a host, see `checkDestination`. */
export function isDestination(text: string): boolean {
  try {
    checkDestination(text);
    return true;
  } catch {
    return false;
  }
}

/** What ssh is to do on the other host. */
export type Errand =
  /** Run this there, through the user's login shell: a constant, never made of what somebody typed. */
  | { readonly command: string }
  /** Carry bytes to this address as seen from there. */
  | { readonly forwardTo: { readonly address: string; readonly port: number } };

/**
 * For a connection that carries data:
 * - it has a TCP connection of its own, so that it neither waits for another one nor leaves one behind
 * - a local command would write into it
 * - a link that went silent is noticed within 20 seconds, and one that is not made within 10
 * - below this level ssh does not say why the other host could not connect
 */
const forwardOptions = [
  "ControlPath=none",
  "PermitLocalCommand=no",
  "ServerAliveInterval=5",
  "ServerAliveCountMax=3",
  "ConnectTimeout=10",
  "LogLevel=INFO",
];

/**
 * The arguments of ssh. The user's configuration, keys, agent and known hosts are used as they are; what is
 * set here keeps settings for terminal sessions out of the way:
 * - forwards of ports are left out: a second connection could not listen on them again
 * - a shared connection is used if there is one, but not opened: it would have to outlive the command
 * - a RemoteCommand would take the place of ours
 * - without a terminal nobody can answer: a question is an error then
 */
export function sshArguments(destination: string, errand: Errand, isInteractive: boolean): string[] {
  checkDestination(destination);
  const options = ["ClearAllForwardings=yes", "ControlMaster=no", "RemoteCommand=none"];
  if (!isInteractive) options.push("BatchMode=yes");
  if ("forwardTo" in errand) options.push(...forwardOptions);
  const common = ["-T", ...options.flatMap((option) => ["-o", option])];
  if ("command" in errand) return [...common, "--", destination, errand.command];
  const { address, port } = errand.forwardTo;
  const target = `${address.includes(":") ? `[${address}]` : address}:${port}`;
  return [...common, "-W", target, "--", destination];
}
