/** Executes a valid request on the device, and says what came of it. */
import { extentLimit } from "./costs.ts";
import type { BlockDevice, Extent } from "./device.ts";
import type { Session } from "./handshake.ts";
import { command, commandFlag } from "./protocol.ts";
import { blockStatusReply, errorReply, readReplyHeader, successReply } from "./replies.ts";
import type { Request } from "./request-decoder.ts";
import { nbdError, wireErrorOf } from "./wire-errors.ts";

/** `error`: an NBD error value. */
export interface Failure {
  readonly kind: "failed";
  readonly error: number;
  readonly message: string;
}

export type Outcome =
  | Failure
  | { readonly kind: "data"; readonly pieces: readonly Uint8Array[] }
  | { readonly kind: "extents"; readonly contexts: readonly ContextExtents[] }
  | { readonly kind: "done" };

/** What is sent, in this order. */
export function replyTo(request: Request, structured: boolean, outcome: Outcome): readonly Uint8Array[] {
  switch (outcome.kind) {
    case "failed":
      return [errorReply(request, structured, outcome.error, outcome.message)];
    case "data": {
      const header = readReplyHeader(request, structured);
      return header === undefined ? outcome.pieces : [header, ...outcome.pieces];
    }
    case "extents":
      return [blockStatusReply(request, outcome.contexts)];
    case "done":
      return [successReply(request, structured)];
  }
}

/**
 * Calls `settled` exactly once; it must not throw. `onBug` is told when the device breaks its contract; the
 * client is told EIO.
 */
export function execute(
  device: BlockDevice,
  request: Request,
  session: Session,
  client: AbortSignal,
  settled: (outcome: Outcome) => void,
  onBug: (error: Error) => void,
): void {
  const failed = (error: unknown) => {
    const isFastZero = request.type === command.writeZeroes && (request.flags & commandFlag.fastZero) !== 0;
    const message = error instanceof Error ? error.message : String(error);
    settled({ kind: "failed", error: wireErrorOf(error, isFastZero), message });
  };
  const broken = (what: string) => {
    const message = `the device broke its contract: ${what}`;
    onBug(new Error(message));
    settled({ kind: "failed", error: nbdError.EIO, message });
  };
  // Also reached with nothing to do: the protocol leaves zero lengths open, and a device never sees them.
  const done = () => settled({ kind: "done" });
  if (request.length === 0 && request.type !== command.flush) return done();
  try {
    switch (request.type) {
      case command.read:
        device.read(request.offset, request.length).then((pieces) => {
          if (totalBytes(pieces) !== request.length) return broken("a read of another length");
          settled({ kind: "data", pieces: pieces.map(compact) });
        }, failed);
        break;
      case command.blockStatus:
        blockStatus(device, request, session).then((contexts) => {
          if (!contexts.every(({ extents }) => areValid(extents, request))) {
            return broken("impossible extents");
          }
          settled({ kind: "extents", contexts });
        }, failed);
        break;
      default:
        withoutData(device, request, client).then(done, failed);
    }
  } catch (error) {
    failed(error);
  }
}

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

/** Pieces up to this size are not worth a copy. */
const smallBytes = 4096;

/**
 * A small piece of a large buffer would keep all of it for as long as the client does not read: far more than
 * it was charged.
 */
function compact(piece: Uint8Array): Uint8Array {
  return piece.buffer.byteLength > 2 * Math.max(piece.length, smallBytes) ? new Uint8Array(piece) : piece;
}
