/** What a session can be told, with its defaults. */
import { type Clock, systemClock } from "./clock.ts";
import { crc32c } from "./crc32c.ts";
import { connectTcp } from "./tcp.ts";
import type { Connect } from "./transport.ts";

export interface ChapCredentials {
  readonly user: string;
  readonly secret: string;
}

export type SessionState = "connecting" | "ready" | "waiting" | "closed";

/** Who the disk behind the LUN is. */
export interface Identity {
  /** At most 2^53 - 1, a multiple of `blockBytes`. */
  readonly sizeBytes: number;
  /** The unit of addresses and lengths: the logical block, usually 512 or 4096. */
  readonly blockBytes: number;
  readonly physicalBlockBytes: number;
  /** The unit serial number (VPD page 80h), without surrounding spaces; "" if there is none. */
  readonly serial: string;
  /** Longest READ(16) that is sent: what the target declares (VPD page B0h), and at most 1 MiB. */
  readonly maxTransferBlocks: number;
  /** LBPRZ: the target promises that deallocated blocks read as zeroes (SBC-3 §5.16.2). */
  readonly deallocatedReadsZero: boolean;
}

export interface InitiatorOptions {
  /** The portal: a name or address, and a TCP port. */
  readonly host: string;
  readonly port: number;
  readonly targetName: string;
  readonly initiatorName: string;
  /** 16 bits; sessions of one initiator name side by side on one target need distinct ones. */
  readonly isidQualifier: number;
  /** 0 to 16383. Default 1. */
  readonly lun?: number;
  /** `target` asks the target to prove itself too (mutual CHAP); the two secrets must differ. */
  readonly chap?: ChapCredentials & { readonly target?: ChapCredentials };
  /** Offer CRC32C; used if the target takes it. Default false. */
  readonly headerDigest?: boolean;
  readonly dataDigest?: boolean;
  /** Commands in flight at most; the target's command window can lower it. Default 64. */
  readonly maxTasks?: number;
  /** Requests that may wait behind the window; one more rejects with `QueueFullError`. Default 4096. */
  readonly maxQueuedRequests?: number;
  /** From the start of connecting to the full-feature phase, redirects included. Default 15 s. */
  readonly loginTimeoutMs?: number;
  /**
   * For one command on one connection, the time that it waits in the target behind others included; over it
   * the connection is dropped. Allow for `maxTasks` reads on a slow link. Default 30 s.
   */
  readonly taskTimeoutMs?: number;
  /** What becomes of the command that was over its time. Default "reissue". */
  readonly onTaskTimeout?: "reissue" | "fail";
  /** A ping is sent after this long without a byte from the target. Default 5 s. */
  readonly nopIntervalMs?: number;
  /** Silence after a ping that counts the connection as dead. Default 10 s. */
  readonly nopTimeoutMs?: number;
  /** Wait between connection attempts: doubles from the one to the other, with jitter. 200 ms and 10 s. */
  readonly backoffMinMs?: number;
  readonly backoffMaxMs?: number;
  /** Largest data segment that the target may send, 512 to 2^24 - 1 bytes. Default 256 KiB. */
  readonly maxRecvDataSegmentLength?: number;
  /** The first login too is tried again until it succeeds or the session is closed. Default false. */
  readonly retryFirst?: boolean;
  /** Replaces TCP, timers or randomness, as a simulator does. */
  readonly connect?: Connect;
  readonly clock?: Clock;
  /** At least 0, below 1. Default Math.random. */
  readonly random?: () => number;
  /** First CmdSN of each connection. Default 1. */
  readonly initialCmdSN?: number;
  onStateChange?(state: SessionState, error?: Error): void;
  /**
   * Runs after each login, the first included, before any read is sent; a throw closes the session for good.
   * That a later login finds the same size, block size and serial as the first is checked anyway.
   */
  verifyIdentity?(identity: Identity): void;
}

/** The options with every default filled in. */
export type Settings =
  & Required<Omit<InitiatorOptions, "chap" | "onStateChange" | "verifyIdentity">>
  & Pick<InitiatorOptions, "chap" | "onStateChange" | "verifyIdentity">;

const defaults = {
  lun: 1,
  headerDigest: false,
  dataDigest: false,
  maxTasks: 64,
  maxQueuedRequests: 4096,
  loginTimeoutMs: 15_000,
  taskTimeoutMs: 30_000,
  onTaskTimeout: "reissue",
  nopIntervalMs: 5_000,
  nopTimeoutMs: 10_000,
  backoffMinMs: 200,
  backoffMaxMs: 10_000,
  maxRecvDataSegmentLength: 262_144,
  retryFirst: false,
  connect: connectTcp,
  clock: systemClock,
  random: Math.random,
  initialCmdSN: 1,
} as const;

/** Inclusive ranges of the numbers. */
const ranges: readonly (readonly [keyof InitiatorOptions, number, number])[] = [
  ["port", 1, 65535],
  ["isidQualifier", 0, 0xffff],
  ["lun", 0, 0x3fff],
  ["maxTasks", 1, 65536],
  ["maxQueuedRequests", 1, 2 ** 31],
  ["loginTimeoutMs", 1, 2 ** 31 - 1],
  ["taskTimeoutMs", 1, 2 ** 31 - 1],
  ["nopIntervalMs", 1, 2 ** 31 - 1],
  ["nopTimeoutMs", 1, 2 ** 31 - 1],
  ["backoffMinMs", 1, 2 ** 31 - 1],
  ["backoffMaxMs", 1, 2 ** 31 - 1],
  ["maxRecvDataSegmentLength", 512, 0xffffff],
  ["initialCmdSN", 0, 0xffffffff],
];

/** Fills in the defaults; throws `RangeError` on what cannot be. No message quotes a secret. */
export function settingsOf(options: InitiatorOptions): Settings {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const settings = { ...defaults, ...given } as Settings;
  for (const [key, min, max] of ranges) {
    const value = settings[key];
    if (!Number.isInteger(value) || Number(value) < min || Number(value) > max) {
      throw new RangeError(`${key} must be a whole number from ${min} to ${max}, not ${String(value)}`);
    }
  }
  checkText("targetName", settings.targetName, 223);
  checkText("initiatorName", settings.initiatorName, 223);
  const { chap } = settings;
  if (chap !== undefined) {
    for (const { user, secret } of chap.target === undefined ? [chap] : [chap, chap.target]) {
      checkText("the CHAP user", user, 255);
      if (secret === "") throw new RangeError("the CHAP secret is empty");
    }
    // RFC 7143 §12.1.3: else a target's challenge could be answered with the target's own answer.
    if (chap.secret === chap.target?.secret) throw new RangeError("the two CHAP secrets must differ");
  }
  return settings;
}

/** A value that a text key can carry: not empty, without control characters. */
function checkText(what: string, value: string, maxBytes: number): void {
  if (value === "" || Buffer.byteLength(value) > maxBytes || [...value].some((char) => char < " ")) {
    throw new RangeError(`${what} must be text of 1 to ${maxBytes} bytes without control characters`);
  }
}

/**
 * The ISID, format "random" (RFC 7143 §11.12.5). It is the same for each login of one initiator name and
 * qualifier, even after a restart of the program, so that a target ends a session that is left over.
 */
export function isidOf(settings: Pick<Settings, "initiatorName" | "isidQualifier">): Uint8Array {
  const isid = new Uint8Array(6);
  const view = new DataView(isid.buffer);
  view.setUint32(0, crc32c(Buffer.from(settings.initiatorName)) >>> 8);
  isid[0] = 0x80;
  view.setUint16(4, settings.isidQualifier);
  return isid;
}
