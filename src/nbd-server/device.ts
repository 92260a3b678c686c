/**
 * What the NBD server serves: the contract between the protocol and the storage behind it.
 *
 * The server validates requests (range, alignment, flags, size) before it calls; a device may rely on
 * `0 <= offset`, `length > 0` and `offset + length <= sizeBytes`. Methods may run concurrently and complete
 * in any order. A rejected promise carries an `Error` with a Node-style `code` ("EIO", "ENOSPC", "EINVAL",
 * "EPERM", "ENOTSUP", …), which the server maps to the wire in one table.
 *
 * `client` is aborted when the client that asked is gone. A device that makes a change wait must not begin it
 * then: nobody was told that it happened, and by the time it would, it may be out of date.
 */
export interface BlockDevice {
  /** Size of the disk, a multiple of 512, at most 2^53 - 1. */
  readonly sizeBytes: number;
  /** The size of request that suits the device best (a power of two, at least 512), advertised to clients. */
  readonly preferredBlockBytes: number;

  /**
   * The bytes in [offset, offset + length), in order, as one or more pieces whose lengths add up to `length`.
   * The pieces stay unchanged until the server has sent them; the server does not modify them.
   */
  read(offset: number, length: number): Promise<readonly Uint8Array[]>;

  /**
   * Stores `data` at `offset`. The server does not touch `data` until the promise settles. With `fua`, the
   * promise resolves only when the data is durable.
   */
  write(offset: number, data: Uint8Array, fua: boolean, client: AbortSignal): Promise<void>;

  /** Resolves when every write that was acknowledged before the call is durable. */
  flush(): Promise<void>;

  /** The range is no longer needed; afterwards its whole blocks read as zeroes. */
  trim(offset: number, length: number, fua: boolean, client: AbortSignal): Promise<void>;

  /**
   * The range reads as zeroes afterwards. `noHole`: space must stay allocated. `fastZero`: reject with
   * `code: "ENOTSUP"` at once, and change nothing, if this would not be quicker than writing zeroes.
   */
  writeZeroes(
    offset: number,
    length: number,
    options: { readonly noHole: boolean; readonly fastZero: boolean; readonly fua: boolean },
    client: AbortSignal,
  ): Promise<void>;

  /** A hint that the range will be read soon (NBD_CMD_CACHE). Resolves when it has been fetched. */
  prefetch(offset: number, length: number): Promise<void>;

  /** Names of the meta contexts that `blockStatus` answers, e.g. "base:allocation". */
  readonly metaContexts: readonly string[];

  /**
   * Consecutive extents from `offset` on, for one of `metaContexts`, at most `maxExtents`, covering at least
   * the first byte and at most `length` bytes. `flags` are those of the meta context.
   */
  blockStatus(context: string, offset: number, length: number, maxExtents: number): Promise<Extent[]>;
}

export interface Extent {
  lengthBytes: number;
  flags: number;
}

/** Flags of "base:allocation" (NBD proto.md, "base:allocation metadata context"). */
export const allocationFlags = { hole: 1, zero: 2 } as const;
