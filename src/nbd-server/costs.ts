/** What a request counts against the budget, from its header to its reply. Pure. */
import { pooledBytesOf } from "../lib/buffer-pool.ts";
import { command, commandFlag } from "./protocol.ts";
import type { Request } from "./request-decoder.ts";

/** Most extents a BLOCK_STATUS reply lists for one context; the client asks again for the rest. */
export const maxExtents = 8192;
/** Of an extent: 8 bytes on the wire and the object it comes as. */
const extentCostBytes = 48;
/** Of every request: itself, its promise, the message of its error. */
export const requestCostBytes = 4096;

/** What costs depend on beside the request. */
export interface CostRules {
  /** The device reads whole blocks of this size (a power of two). */
  readonly preferredBlockBytes: number;
  readonly metaContextCount: number;
}

export function costBytesOf(request: Request, rules: CostRules): number {
  if (request.length === 0) return requestCostBytes;
  switch (request.type) {
    case command.read:
      return Math.max(requestCostBytes, wholeBlockBytes(request, rules.preferredBlockBytes));
    case command.write:
      return pooledBytesOf(request.length);
    case command.blockStatus:
      return blockStatusCostBytes(rules.metaContextCount, extentLimit(request));
    default:
      return requestCostBytes;
  }
}

export function blockStatusCostBytes(metaContextCount: number, extents: number): number {
  return requestCostBytes + metaContextCount * extents * extentCostBytes;
}

export function extentLimit(request: Request): number {
  return (request.flags & commandFlag.reqOne) !== 0 ? 1 : maxExtents;
}

function wholeBlockBytes({ offset, length }: Request, blockBytes: number): number {
  const from = Math.floor(offset / blockBytes) * blockBytes;
  return Math.ceil((offset + length) / blockBytes) * blockBytes - from;
}
