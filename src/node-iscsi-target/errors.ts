/**
 * The one error of this room. `reason` says what kind it is, the message says what failed and on what, and
 * `hint` what can be done about it. Pure: the mapping from tgtadm's exit codes and texts, from the management
 * socket's error numbers and from tgtd's log is here and nowhere else.
 */

export type TgtReason =
  /** tgtd or tgtadm is not on this machine. */
  | "notInstalled"
  /** No daemon listens there, or it closed the connection without an answer. */
  | "noDaemon"
  /** The daemon did not answer in time. */
  | "timeout"
  /** A tgtd runs in this folder already. */
  | "alreadyRunning"
  /** tgtd ended, or did not become ready, while it was being started. */
  | "startFailed"
  /** tgtd listens on all addresses, which is never wanted; it has been killed. */
  | "wildcardPortal"
  | "portInUse"
  | "addressNotAvailable"
  | "permission"
  | "noTarget"
  | "noLun"
  | "noSession"
  | "noBinding"
  | "noUser"
  | "targetExists"
  | "lunExists"
  | "userExists"
  | "bindingExists"
  | "targetActive"
  | "lunActive"
  /** tgtd refused the request, without saying more. */
  | "invalidRequest"
  /** tgtd's answer is not one that this library knows. */
  | "badReply"
  /** An argument was refused before tgtd was asked. */
  | "invalidArgument"
  /** The disk cannot be exported: missing, a directory, empty, of an odd size, … */
  | "badDisk"
  /** The LUN did not become read-only. */
  | "notReadOnly";

export class TgtError extends Error {
  readonly reason: TgtReason;
  /** What can be done about it; one sentence. */
  readonly hint: string | undefined;

  constructor(
    reason: TgtReason,
    message: string,
    details: { readonly hint?: string; readonly cause?: unknown } = {},
  ) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "TgtError";
    this.reason = reason;
    this.hint = details.hint;
  }
}

export function isTgtError(error: unknown, ...reasons: TgtReason[]): error is TgtError {
  return error instanceof TgtError && (reasons.length === 0 || reasons.includes(error.reason));
}

/** Error number on the management socket, what tgtadm prints for it, and what it is called here. */
const managementErrors: readonly (readonly [number, string, TgtReason])[] = [
  [4, "can't find the target", "noTarget"],
  [5, "can't find the logical unit", "noLun"],
  [6, "can't find the session", "noSession"],
  [7, "can't find the connection", "noSession"],
  [8, "can't find the binding", "noBinding"],
  [9, "this target already exists", "targetExists"],
  [10, "this logical unit number already exists", "lunExists"],
  [11, "this binding already exists", "bindingExists"],
  [12, "this access control rule already exists", "bindingExists"],
  [13, "this access control rule does not exist", "noBinding"],
  [14, "this account already exists", "userExists"],
  [15, "can't find the account", "noUser"],
  [16, "too many accounts", "invalidRequest"],
  [17, "invalid request", "invalidRequest"],
  [18, "this target already has an outgoing account", "bindingExists"],
  [19, "this target is still active", "targetActive"],
  [20, "this logical unit is still active", "lunActive"],
  [22, "this operation isn't supported", "invalidRequest"],
  [23, "unknown parameter", "invalidRequest"],
];

/** The error for a number that came over the management socket. */
export function errorFromNumber(code: number, action: string): TgtError {
  const known = managementErrors.find(([number]) => number === code);
  if (known === undefined) return new TgtError("invalidRequest", `${action}: tgtd error ${code}`);
  return new TgtError(known[2], `${action}: ${known[1]}`);
}

/** Answers of tgtadm that come with exit code 0 although nothing was done. */
const lostAnswers =
  /tgtd closed the socket|a partial response|can't get the response|interrupted by a signal/;

/** ENOTCONN: what tgtadm exits with when nobody listens on the control socket. */
const exitNotConnected = 107;

/**
 * What a finished tgtadm says; undefined: it did what it was asked.
 *
 * `action` is what was attempted, for the message.
 */
export function errorFromTgtadm(exitCode: number, stderr: string, action: string): TgtError | undefined {
  const text = stderr.trim().replace(/^tgtadm: /gm, "");
  if (lostAnswers.test(text)) {
    return new TgtError(
      "noDaemon",
      `${action}: tgtd closed the control connection without an answer (it died, or it runs as another user)`,
    );
  }
  if (exitCode === 0) return undefined;
  if (exitCode === exitNotConnected || /can't connect|send request/.test(text)) {
    return new TgtError("noDaemon", `${action}: no tgtd answers on the control socket`);
  }
  const reason = managementErrors.find(([, known]) => text.includes(known))?.[2] ?? "invalidRequest";
  return new TgtError(reason, `${action}: ${text || `tgtadm ended with exit code ${exitCode}`}`);
}

/**
 * tgtadm says no more than "invalid request" when a portal or a disk cannot be opened; the cause is in tgtd's
 * log. `log` is what tgtd wrote while it dealt with the request.
 */
export function withLog(error: TgtError, log: string): TgtError {
  if (error.reason !== "invalidRequest") return error;
  const line = log.split("\n").find((text) => /unable to bind|Could not open|Cannot|can't/.test(text));
  if (line === undefined) return error;
  const said = line.replace(/^.*?\(\d+\) /, "").trim();
  const message = `${error.message} (${said})`;
  if (/Address already in use/.test(line)) {
    return new TgtError("portInUse", message, { hint: "Choose another port, or 0 for any free one." });
  }
  if (/Cannot assign requested address/.test(line)) {
    return new TgtError("addressNotAvailable", message, { hint: "Choose an address of this host." });
  }
  if (/Permission denied|Operation not permitted/.test(line)) return new TgtError("permission", message);
  return new TgtError(error.reason, message);
}
