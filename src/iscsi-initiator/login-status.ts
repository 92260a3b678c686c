/** What a Login Response's status means (RFC 7143 §11.13.5), and where a redirect leads to. Pure. */
import { LoginError, type LoginFailure } from "./errors.ts";
import { parseNumber } from "./text.ts";

const refusals = new Map<number, readonly [LoginFailure, string]>([
  [0x201, ["authentication", "wrong user or secret, or the target wants CHAP and none was given"]],
  [0x202, ["authorization", "this initiator may not use the target"]],
  [0x203, ["notFound", "no such target there, or this host's address is not allowed to see it"]],
  [0x204, ["notFound", "the target was removed"]],
  [0x205, ["negotiation", "the target speaks another version of iSCSI"]],
  [0x206, ["unavailable", "the target has too many connections"]],
  [0x207, ["negotiation", "the target misses a parameter"]],
  [0x208, ["negotiation", "the target cannot put this connection into the session"]],
  [0x209, ["negotiation", "the target does not support this type of session"]],
  [0x20a, ["negotiation", "the target does not know the session"]],
  [0x20b, ["negotiation", "the target calls a login request invalid"]],
  [0x300, ["unavailable", "the target has an error or is offline"]],
  [0x301, ["unavailable", "the target is out of service for now"]],
  [0x302, ["unavailable", "the target is out of resources"]],
]);

/** The error for a status class of 2 or more. */
export function loginRefusal(statusClass: number, statusDetail: number): LoginError {
  const known = refusals.get(statusClass << 8 | statusDetail);
  const [failure, meaning] = known ??
    (statusClass === 2
      ? ["authorization", "the target refuses this initiator"] as const
      : ["unavailable", "the target reports an unknown error"] as const);
  const code = `status ${statusClass}/${statusDetail}`;
  return new LoginError(failure, `login refused: ${meaning} (${code})`, statusClass, statusDetail);
}

/** `host[:port][,group]`, an IPv6 address in brackets (RFC 7143 §13.8); undefined if it is malformed. */
export function parseTargetAddress(value: string): { host: string; port: number } | undefined {
  const match = /^(?:\[([0-9a-fA-F:.%]+)\]|([A-Za-z0-9.\-_]+))(?::(\d{1,5}))?(?:,\d{1,5})?$/.exec(value);
  if (match === null || value.length > 300) return undefined;
  const port = parseNumber(match[3] ?? "3260", 1, 65535);
  return port === undefined ? undefined : { host: match[1] ?? match[2], port };
}
