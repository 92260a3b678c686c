/**
 * Request and response over any byte stream: a unix socket, a child's stdio, or memory. See frames.ts for
 * what is on the wire and messages.ts for what it means.
 */
export { type CallOptions, type ClientOptions, RpcClient } from "./client.ts";
export {
  NotListeningError,
  RemoteError,
  RpcClosedError,
  RpcHandshakeError,
  RpcProtocolError,
  RpcSilentError,
  RpcTimeoutError,
} from "./errors.ts";
export { type Banner, capability } from "./frames.ts";
export type { LinkOptions } from "./link.ts";
export { joinStreams, localPair } from "./local.ts";
export { type CallContext, type Handlers, serve, type Served } from "./server.ts";
export { connectUnix, type Listener, listenUnix } from "./unix.ts";
