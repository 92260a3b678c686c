/** What can go wrong with a conversation, as seen by the caller. */
import { FailedError, PreconditionError } from "../lib/errors.ts";

/** The conversation cannot begin: no dlsm there, another version, or no answer. */
export class RpcHandshakeError extends PreconditionError {}

/** The other side said nothing at all in time: it hangs, or something asks for a password. */
export class RpcSilentError extends RpcHandshakeError {}

/** Nobody listens on the unix socket (no such file, or one that a dead process left). */
export class NotListeningError extends PreconditionError {}

/** The conversation ended while a call was under way, or before it. Whether the call had effect is unknown. */
export class RpcClosedError extends FailedError {}

/** The call took longer than its deadline. Whether it had effect is unknown. */
export class RpcTimeoutError extends FailedError {}

/** The other side broke the protocol. */
export class RpcProtocolError extends FailedError {}

/** The handler failed with something that is not of the DlsmError family; `cause` is its remote stack. */
export class RemoteError extends FailedError {}
