/**
 * The errors of the initiator. All are `IscsiError`s; the message names the target and the portal and never
 * holds a secret. Pure parts throw them without a place; the connection adds it (`at`).
 */
import type { Sense } from "./sense.ts";

/** Which target an error is about. */
export interface Place {
  readonly targetName: string;
  readonly host: string;
  readonly port: number;
}

export abstract class IscsiError extends Error {
  /** What happened, without the place. */
  readonly reason: string;
  place: Place | undefined;

  constructor(reason: string, cause?: unknown) {
    super(reason, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.reason = reason;
  }

  /** Adds the place to the message, once. */
  at(place: Place): this {
    if (this.place === undefined) {
      this.place = place;
      this.message = `${this.reason} (target ${place.targetName} at ${portalText(place.host, place.port)})`;
    }
    return this;
  }
}

/** `host:port`, an IPv6 address in brackets (RFC 7143 §13.8). */
export function portalText(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** The portal cannot be reached, or the connection broke, fell silent or did not finish in time. */
export class TransportError extends IscsiError {}

/** The target broke RFC 7143, SPC or SBC, or the limits of this initiator. */
export class ProtocolError extends IscsiError {}

/** A data or header digest did not match: what arrived was damaged on the way. */
export class DigestError extends ProtocolError {}

/** The target could not even carry out a command (RFC 7143 §11.4.3, "target failure"). */
export class TargetFailureError extends ProtocolError {}

/** A command was not done within `taskTimeoutMs`. */
export class TaskTimeoutError extends IscsiError {}

/** Another disk answers than the one this session began with, or `verifyIdentity` refused it. */
export class IdentityError extends IscsiError {}

/** The session was closed; what was pending is given up. */
export class SessionClosedError extends IscsiError {}

/** More requests wait than `maxQueuedRequests`. */
export class QueueFullError extends IscsiError {}

/** Why a login was refused, in the terms that a caller acts on. */
export type LoginFailure =
  /** Wrong user, secret or method, or the target could not prove who it is. */
  | "authentication"
  /** The target exists but this initiator may not use it. */
  | "authorization"
  /** No such target here (tgtd says this of a refused address too). */
  | "notFound"
  | "redirect"
  /** The target is there but out of service or out of resources. */
  | "unavailable"
  /** Initiator and target found no common terms. */
  | "negotiation";

/** The login failed. Class and detail are those of RFC 7143 §11.13.5, or 0 and 0 if this side refused. */
export class LoginError extends IscsiError {
  readonly failure: LoginFailure;
  readonly statusClass: number;
  readonly statusDetail: number;

  constructor(failure: LoginFailure, reason: string, statusClass = 0, statusDetail = 0) {
    super(reason);
    this.failure = failure;
    this.statusClass = statusClass;
    this.statusDetail = statusDetail;
  }
}

/** A command ended with a status other than GOOD (SAM-5 §5.3). */
export class ScsiError extends IscsiError {
  readonly status: number;
  /** Undefined if the status is not CHECK CONDITION, or the target sent no readable sense data. */
  readonly sense: Sense | undefined;

  constructor(command: string, status: number, sense: Sense | undefined) {
    super(`${command} failed: ${sense?.text ?? statusText(status)}`);
    this.status = status;
    this.sense = sense;
  }
}

export const scsiStatus = {
  good: 0x00,
  checkCondition: 0x02,
  conditionMet: 0x04,
  busy: 0x08,
  reservationConflict: 0x18,
  taskSetFull: 0x28,
  acaActive: 0x30,
  taskAborted: 0x40,
} as const;

const statusNames = new Map<number, string>([
  [scsiStatus.good, "GOOD"],
  [scsiStatus.checkCondition, "CHECK CONDITION without readable sense data"],
  [scsiStatus.conditionMet, "CONDITION MET"],
  [scsiStatus.busy, "BUSY"],
  [scsiStatus.reservationConflict, "RESERVATION CONFLICT"],
  [scsiStatus.taskSetFull, "TASK SET FULL"],
  [scsiStatus.acaActive, "ACA ACTIVE"],
  [scsiStatus.taskAborted, "TASK ABORTED"],
]);

function statusText(status: number): string {
  return statusNames.get(status) ?? `SCSI status 0x${status.toString(16)}`;
}
