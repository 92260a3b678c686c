/**
 * Arguments are checked here, before tgtd sees them: it accepts nonsense (an access list entry that matches
 * nobody, or everybody), cuts long ids off, and takes commas for separators. Pure.
 */
import { TgtError } from "./errors.ts";
import type { Portal } from "./types.ts";

function refuse(message: string, hint?: string): never {
  throw new TgtError("invalidArgument", message, hint === undefined ? {} : { hint });
}

/** RFC 7143 §4.2.7: an `iqn.` name in its normal form (lower case), at most 223 bytes. */
export function checkTargetName(name: string): void {
  if (name.length > 223 || !/^iqn\.\d{4}-\d{2}\.[a-z0-9][a-z0-9.:-]*$/.test(name)) {
    refuse(
      `${JSON.stringify(name)} is no target name`,
      "Use one like iqn.2024-01.org.example:disk1, in lower case, of at most 223 characters.",
    );
  }
}

/** At most 36 bytes (tgtd cuts longer ones off), without what tgtadm takes for separators. */
export function checkSerial(serial: string): void {
  if (!/^[A-Za-z0-9._:-]{1,36}$/.test(serial)) {
    refuse(
      `${JSON.stringify(serial)} cannot be a serial number`,
      "Use 1 to 36 letters, digits, dots, colons, dashes or underscores.",
    );
  }
}

export interface Credentials {
  readonly user: string;
  /** 12 to 128 printable ASCII characters (RFC 7143 §9.2.1 asks for at least 96 bits). */
  readonly secret: string;
}

export interface Chap {
  /** The initiator proves itself with these. */
  readonly incoming: Credentials;
  /** Mutual CHAP: the target proves itself with these. */
  readonly outgoing?: Credentials;
}

export function checkCredentials({ user, secret }: Credentials): void {
  if (!/^[A-Za-z0-9._:@-]{1,64}$/.test(user)) {
    refuse(
      `${JSON.stringify(user)} cannot be a CHAP user`,
      "Use 1 to 64 letters, digits, or any of . _ : @ -",
    );
  }
  // Never print the secret.
  if (!/^[\x20-\x7e]{12,128}$/.test(secret)) {
    refuse(`the CHAP secret of ${user} cannot be used`, "Use 12 to 128 printable ASCII characters.");
  }
}

export function checkChap({ incoming, outgoing }: Chap): void {
  checkCredentials(incoming);
  if (outgoing === undefined) return;
  checkCredentials(outgoing);
  if (incoming.user === outgoing.user) refuse(`both CHAP users are ${incoming.user}`);
  if (incoming.secret === outgoing.secret) {
    refuse(
      "both CHAP secrets are the same",
      "A mirrored challenge would defeat them: use two (RFC 7143 §9.2.1).",
    );
  }
}

const ipv4Pattern = /^(\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])(\.(\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])){3}$/;

/** 4, 6, or 0 for anything that is not the address of one host. */
function addressFamily(text: string): 0 | 4 | 6 {
  if (ipv4Pattern.test(text)) return text === "0.0.0.0" ? 0 : 4;
  if (!/^[0-9a-fA-F:.]{3,45}$/.test(text)) return 0;
  try {
    const { hostname } = new URL(`http://[${text}]/`);
    return hostname === "[::]" || hostname.startsWith("[::ffff:") ? 0 : 6;
  } catch {
    return 0;
  }
}

/**
 * The one address that may log in: a literal IPv4 or IPv6 address of one host. A zone (`%eth0`) is cut off,
 * because tgtd does not compare it. Returns the address and its family.
 */
export function checkAllowed(allow: string): { address: string; family: 4 | 6 } {
  const address = allow.replace(/%[A-Za-z0-9._-]+$/, "");
  const family = addressFamily(address);
  if (family === 0) {
    refuse(
      `${JSON.stringify(allow)} is not the IP address of one host`,
      "Give a literal IPv4 or IPv6 address, without a prefix length.",
    );
  }
  return { address, family };
}

export function familyOf(portal: Portal): 4 | 6 {
  return portal.address.includes(":") ? 6 : 4;
}

export function checkPortal({ address, port }: Portal): void {
  if (addressFamily(address.replace(/%[A-Za-z0-9._-]+$/, "")) === 0) {
    refuse(
      `${JSON.stringify(address)} is not an address to listen on`,
      "Give a literal IPv4 or IPv6 address of this host; never all of them.",
    );
  }
  if (!Number.isInteger(port) || port < 0 || port > 65535) refuse(`${port} is not a TCP port (0 to 65535)`);
}

export function checkCount(what: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    refuse(`${what} is ${value}, not ${min} to ${max}`);
  }
}

/** sockaddr_un holds 107 bytes and a NUL. */
export const maxSocketPathBytes = 107;

export function checkSocketPath(path: string): void {
  const bytes = new TextEncoder().encode(path).length;
  if (bytes > maxSocketPathBytes) {
    refuse(
      `the path of the control socket ${path} is ${bytes} bytes long; a unix socket allows ${maxSocketPathBytes}`,
      "Choose a folder with a shorter path.",
    );
  }
}
