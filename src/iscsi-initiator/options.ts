/** What a session can be told, with its defaults. Pure. */
import type { Clock } from "./clock.ts";
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
  /** For one command on one connection; over it the connection is dropped. Default 30 s. */
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
