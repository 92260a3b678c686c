/** Executes a valid request on the device and hands the reply to `reply`, exactly once. */
import type { BlockDevice, Extent } from "./device.ts";
import type { Session } from "./handshake.ts";
import { command, commandFlag } from "./protocol.ts";
import { blockStatusReply, errorReply, readReplyHeader, successReply } from "./replies.ts";
import type { Request } from "./request-decoder.ts";
import { nbdError, wireErrorOf } from "./wire-errors.ts";

/** Most extents a BLOCK_STATUS reply lists for one context; the client asks again for the rest. */
export const maxExtents = 8192;
/** What an extent counts against the budget: 8 bytes on the wire and the object it comes as. */
const extentCostBytes = 48;

/** A reply: a header and, for a READ, the pieces of the device. Must not throw. */
export type Reply = (header: Uint8Array, pieces: readonly Uint8Array[]) => void;

/** Bytes that a request counts against its connection's budget, from its header to its reply. */
export function costBytesOf(request: Request, session: Session): number {
  switch (request.type) {
    case command.read:
    case command.write:
      return request.length;
    case command.blockStatus:
      return session.metaContexts.length * extentLimit(request) * extentCostBytes;
    default:
      return 0;
  }
}

/** `onBug` is told when the device breaks its contract; the client is told EIO. */
export function execute(
  device: BlockDevice,
  request: Request,
  session: Session,
  client: AbortSignal,
  reply: Reply,
  onBug: (error: Error) => void,
): void {
  const { structuredReplies } = session;
  const failed = (error: unknown) => {
    const isFastZero = request.type === command.writeZeroes && (request.flags & commandFlag.fastZero) !== 0;
    const message = error instanceof Error ? error.message : String(error);
    reply(errorReply(request, structuredReplies, wireErrorOf(error, isFastZero), message), none);
  };
  const broken = (what: string) => {
    const message = `the device broke its contract: ${what}`;
    onBug(new Error(message));
    reply(errorReply(request, structuredReplies, nbdError.EIO, message), none);
  };
  // Also reached with nothing to do: the protocol leaves zero lengths open, and a device never sees them.
  const done = () => reply(successReply(request, structuredReplies), none);
  if (request.length === 0 && request.type !== command.flush) return done();
  try {
    switch (request.type) {
      case command.read:
        device.read(request.offset, request.length).then((pieces) => {
          if (totalBytes(pieces) !== request.length) return broken("a read of another length");
          reply(readReplyHeader(request, structuredReplies), pieces);
        }, failed);
        break;
      case command.blockStatus:
        blockStatus(device, request, session).then((contexts) => {
          if (!contexts.every(({ extents }) => areValid(extents, request))) {
            return broken("impossible extents");
          }
          reply(blockStatusReply(request, contexts), none);
        }, failed);
        break;
      default:
        withoutData(device, request, client).then(done, failed);
    }
  } catch (error) {
    failed(error);
  }
}

const none: readonly Uint8Array[] = [];

/** The commands whose reply says only whether they worked. */
function withoutData(device: BlockDevice, request: Request, client: AbortSignal): Promise<void> {
  const { offset, length, flags } = request;
  const fua = (flags & commandFlag.fua) !== 0;
  switch (request.type) {
    case command.write:
      return device.write(offset, request.payload, fua, client);
    case command.flush:
      return device.flush();
    case command.trim:
      return device.trim(offset, length, fua, client);
    case command.cache:
      return device.prefetch(offset, length);
    case command.writeZeroes:
      return device.writeZeroes(offset, length, {
        noHole: (flags & commandFlag.noHole) !== 0,
        fastZero: (flags & commandFlag.fastZero) !== 0,
        fua,
      }, client);
    default:
      throw new Error(`command ${request.type} passed validation`);
  }
}

interface ContextExtents {
  readonly id: number;
  readonly extents: readonly Extent[];
}

function blockStatus(device: BlockDevice, request: Request, session: Session): Promise<ContextExtents[]> {
  return Promise.all(session.metaContexts.map(async ({ id, name }) => {
    const extents = await device.blockStatus(name, request.offset, request.length, extentLimit(request));
    return { id, extents };
  }));
}

function extentLimit(request: Request): number {
  return (request.flags & commandFlag.reqOne) !== 0 ? 1 : maxExtents;
}

/** Empty extents, or more than was asked for, would make the client drop us. */
function areValid(extents: readonly Extent[], request: Request): boolean {
  let total = 0;
  for (const { lengthBytes, flags } of extents) {
    if (!Number.isInteger(lengthBytes) || lengthBytes <= 0) return false;
    if (!Number.isInteger(flags) || flags < 0 || flags > 0xffffffff) return false;
    total += lengthBytes;
  }
  return total > 0 && total <= request.length && extents.length <= extentLimit(request);
}

function totalBytes(pieces: readonly Uint8Array[]): number {
  let total = 0;
  for (const piece of pieces) total += piece.length;
  return total;
}
