/**
 * The contract between a connection and what carries its bytes. TCP is in tcp.ts; a simulator or a tunnel
 * can take its place.
 */

export interface TransportHandlers {
  /** The peer is connected. Called at most once, never before `connect` has returned. */
  onConnect(): void;
  /** Bytes from the peer; they are only valid during the call. */
  onData(chunk: Uint8Array): void;
  /** The end, called exactly once and last, except after `destroy`. No error: the peer closed in order. */
  onClose(error: Error | undefined): void;
}

export interface Transport {
  /** Sends `bytes`, which must not change afterwards. */
  write(bytes: Uint8Array): void;
  /** Written, but not yet taken by the operating system. */
  readonly bufferedBytes: number;
  /** Closes at once; no handler is called any more. */
  destroy(): void;
}

export type Connect = (
  address: { readonly host: string; readonly port: number },
  handlers: TransportHandlers,
) => Transport;
