/** A host as the one who asks sees it, wherever it is. */
import { UnreachableError } from "../lib/errors.ts";
import type { HostFacts } from "./host-messages.ts";
import type { Replies, Request, RequestName } from "./messages.ts";

export interface AskOptions {
  /** From now, connecting included; then RpcTimeoutError, and whether the request had effect is unknown. */
  readonly timeoutMs?: number;
  /** Cancels the request: it rejects with the signal's reason at once. */
  readonly signal?: AbortSignal;
}

export interface Host {
  /** How ssh gets there, such as "root@node1"; null: this machine. */
  readonly reach: string | null;

  /**
   * Rejects with the error of the role there, RpcTimeoutError, or UnreachableError: then `isUnreachable`, and
   * the next request tries to connect again.
   */
  ask<Name extends RequestName>(
    name: Name,
    request: Request<Name>,
    options?: AskOptions,
  ): Promise<Replies[Name]>;

  /** What it says about itself; asked once in a conversation. */
  facts(options?: AskOptions): Promise<HostFacts>;

  /** Ends the conversation; what is under way there ends first. */
  close(): Promise<void>;
}

/** Whether the error says that a host cannot be asked now, not that it refused. */
export function isUnreachable(error: unknown): error is UnreachableError {
  return error instanceof UnreachableError;
}
