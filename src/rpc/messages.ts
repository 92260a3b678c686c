/**
 * The messages inside the frames, one CBOR map each, told apart by `type`:
 *
 * | type     | sent by | fields                                 |
 * |----------|---------|----------------------------------------|
 * | call     | client  | id, method, params, timeoutMs?         |
 * | cancel   | client  | id                                     |
 * | progress | server  | id, value                              |
 * | result   | server  | id, value (ends the call)              |
 * | error    | server  | id, kind, message, hint?, stack? (same)|
 * | beat     | both    |                                        |
 *
 * `timeoutMs` is what is left of the caller's deadline: no clocks are compared. Every call gets exactly one
 * result or error, a cancelled one too.
 *
 * Pure.
 */
import { decodeCbor, encodeCbor } from "../lib/cbor.ts";
import {
  DifferenceError,
  DlsmError,
  type ErrorDetails,
  exitCodes,
  FailedError,
  InterruptedError,
  LockedError,
  messageOf,
  PreconditionError,
  UnreachableError,
  UsageError,
} from "../lib/errors.ts";
import { RemoteError, RpcProtocolError, RpcTimeoutError } from "./errors.ts";

export interface CallMessage {
  readonly type: "call";
  readonly id: number;
  readonly method: string;
  readonly params: unknown;
  readonly timeoutMs?: number;
}

export interface ErrorMessage {
  readonly type: "error";
  readonly id: number;
  /** A class of the DlsmError family, "timeout", or "internal" for anything else. */
  readonly kind: string;
  readonly message: string;
  readonly hint?: string;
  readonly stack?: string;
}

export type Message =
  | CallMessage
  | ErrorMessage
  | { readonly type: "cancel"; readonly id: number }
  | { readonly type: "progress" | "result"; readonly id: number; readonly value: unknown }
  | { readonly type: "beat" };

/** Throws TypeError if the message holds what is not plain data. */
export function encodeMessage(message: Message): Uint8Array {
  return encodeCbor(message);
}

/** Throws RpcProtocolError for anything that is not a message. */
export function decodeMessage(payload: Uint8Array): Message {
  let value: unknown;
  try {
    value = decodeCbor(payload);
  } catch (cause) {
    throw new RpcProtocolError(`the other side sent a message that cannot be read: ${messageOf(cause)}`);
  }
  if (!isMessage(value)) throw new RpcProtocolError("the other side sent a message that makes no sense");
  return value;
}

function isMessage(value: unknown): value is Message {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const fields = value as Record<string, unknown>;
  if (fields.type === "beat") return true;
  if (!Number.isSafeInteger(fields.id) || (fields.id as number) < 0) return false;
  switch (fields.type) {
    case "cancel":
      return true;
    case "progress":
    case "result":
      return true;
    case "call":
      return typeof fields.method === "string" && isOptional(fields.timeoutMs, isPositive);
    case "error":
      return typeof fields.kind === "string" && typeof fields.message === "string" &&
        isOptional(fields.hint, isString) && isOptional(fields.stack, isString);
    default:
      return false;
  }
}

const isString = (value: unknown) => typeof value === "string";
const isPositive = (value: unknown) => typeof value === "number" && value > 0;

function isOptional(value: unknown, check: (value: unknown) => boolean): boolean {
  return value === undefined || check(value);
}

/** The family's classes by name; a subclass crosses the wire as the member it derives from. */
const family: Readonly<Record<string, new (message: string, details?: ErrorDetails) => DlsmError>> = {
  FailedError,
  UsageError,
  PreconditionError,
  InterruptedError,
  DifferenceError,
  LockedError,
};

/** The message that carries `error` to the caller. */
export function errorToMessage(id: number, error: unknown): ErrorMessage {
  const message = messageOf(error);
  if (error instanceof RpcTimeoutError) return { type: "error", id, kind: "timeout", message };
  if (error instanceof DlsmError && !(error instanceof RemoteError)) {
    const kind = Object.keys(family).find((name) => error instanceof family[name]) ??
      (error instanceof UnreachableError ? unreachableKind(error) : undefined);
    if (kind !== undefined) return withHint({ type: "error", id, kind, message }, error.hint);
  }
  const stack = error instanceof Error ? error.stack : undefined;
  const internal: ErrorMessage = { type: "error", id, kind: "internal", message };
  return stack === undefined ? internal : { ...internal, stack };
}

/** That the other side cannot reach a third host is not that it cannot be reached itself. */
function unreachableKind({ exitCode }: UnreachableError): string {
  return exitCode === exitCodes.failed ? "FailedError" : "PreconditionError";
}

function withHint(message: ErrorMessage, hint: string | undefined): ErrorMessage {
  return hint === undefined ? message : { ...message, hint };
}

/** The error that the caller is to see. */
export function messageToError({ kind, message, hint, stack }: ErrorMessage): DlsmError {
  if (kind === "timeout") return new RpcTimeoutError(message);
  if (Object.hasOwn(family, kind)) return new family[kind](message, hint === undefined ? {} : { hint });
  return new RemoteError(message, {
    hint: "dlsm did not expect this error: please report it, with what is in its cause",
    cause: stack,
  });
}
