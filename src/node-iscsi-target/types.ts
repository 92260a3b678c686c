/** What tgtd shows, as typed values. Pure. */

/** A listening address. */
export interface Portal {
  /** A literal IPv4 or IPv6 address, without brackets. */
  readonly address: string;
  readonly port: number;
}

/** CHAP: `incoming` accounts prove the initiator to the target, `outgoing` ones the target to the initiator. */
export type AccountDirection = "incoming" | "outgoing";

export interface BoundAccount {
  readonly user: string;
  readonly direction: AccountDirection;
}

/** One connection of a session (RFC 7143 §4.2.1); tgtd allows one a session. */
export interface Connection {
  readonly sid: number;
  readonly cid: number;
  readonly initiator: string;
  /** The initiator's IP address. */
  readonly address: string;
}

export interface Lun {
  readonly lun: number;
  /** "controller" (LUN 0 of every target), "disk", … */
  readonly type: string;
  readonly scsiId: string;
  readonly serial: string;
  readonly blockBytes: number;
  readonly online: boolean;
  readonly readOnly: boolean;
  readonly backingType: string;
  readonly backingPath: string;
  /** "direct", "sync" */
  readonly backingFlags: readonly string[];
}

export interface Target {
  readonly tid: number;
  readonly name: string;
  readonly state: string;
  /** 0: tgtd sends no NOP-In and notices a dead peer only by TCP keepalive. */
  readonly nopIntervalSeconds: number;
  readonly nopCount: number;
  readonly luns: readonly Lun[];
  readonly accounts: readonly BoundAccount[];
  /** Addresses (and initiator names) that may log in. */
  readonly allowed: readonly string[];
}

export interface SystemState {
  /** "ready" */
  readonly state: string;
  /** By driver, e.g. `{ iscsi: "ready", iser: "error" }`. */
  readonly drivers: ReadonlyMap<string, string>;
}

/** Bytes and commands that reached the backing store, and those of them that are finished. */
export interface Traffic {
  readonly submittedBytes: number;
  readonly submittedCommands: number;
  readonly doneBytes: number;
  readonly doneCommands: number;
}

/**
 * Counters of one LUN in one session. They end with the session. Commands wrap at 2^32. One error is
 * normal: the unit attention 29/00 that every new session gets.
 */
export interface LunStatistics {
  readonly tid: number;
  readonly lun: number;
  readonly sid: number;
  readonly read: Traffic;
  readonly write: Traffic;
  readonly errors: number;
}
