/** Replies of the transmission phase (NBD proto.md, "Simple reply message" and what follows). Pure. */
import { Buffer } from "node:buffer";
import type { Extent } from "./device.ts";
import { chunkFlagDone, chunkType, command, commandFlag, magic } from "./protocol.ts";
import type { Request } from "./request-decoder.ts";

const simpleHeaderBytes = 16;
const chunkHeaderBytes = 20;
/** Enough for a sentence; the protocol allows 4096. */
const maxMessageBytes = 1024;

/**
 * What goes before a READ's data, or before that of a part of it; `request.length` bytes must follow. An empty
 * READ is answered by `successReply`, since a chunk of data holds at least one byte. Undefined if nothing goes
 * before it: a later part of a reply that is one piece (see `isOnePiece`).
 */
export function readReplyHeader(request: Request, structured: boolean): Uint8Array | undefined {
  const onePiece = isOnePiece(request, structured);
  if (onePiece && !request.isFirst) return undefined;
  if (!structured) return simpleReply(request, 0);
  const bytes = Buffer.allocUnsafe(chunkHeaderBytes + 8);
  const dataBytes = onePiece ? request.wholeLength : request.length;
  const flags = onePiece || request.isLast ? chunkFlagDone : 0;
  writeChunkHeader(bytes, 0, request, flags, chunkType.offsetData, 8 + dataBytes);
  bytes.writeUInt32BE(Math.floor(request.offset / 2 ** 32), chunkHeaderBytes);
  bytes.writeUInt32BE(request.offset % 2 ** 32, chunkHeaderBytes + 4);
  return bytes;
}

/** Whether a READ's data follows one header: then no error can be told once that is sent. */
export function isOnePiece(request: Request, structured: boolean): boolean {
  return !structured || (request.flags & commandFlag.df) !== 0;
}

/** Success without data. A READ may not be answered by a simple reply once structured ones are agreed on. */
export function successReply(request: Request, structured: boolean): Uint8Array {
  if (!structured || request.type !== command.read) return simpleReply(request, 0);
  const bytes = Buffer.allocUnsafe(chunkHeaderBytes);
  writeChunkHeader(bytes, 0, request, chunkFlagDone, chunkType.none, 0);
  return bytes;
}

/** `error` is an NBD error value; `message` is sent, shortened if need be, where the reply can carry it. */
export function errorReply(
  request: Request,
  structured: boolean,
  error: number,
  message: string,
): Uint8Array {
  if (!structured) return simpleReply(request, error);
  const text = shortened(message);
  const bytes = Buffer.allocUnsafe(chunkHeaderBytes + 6 + text.length);
  writeChunkHeader(bytes, 0, request, chunkFlagDone, chunkType.error, 6 + text.length);
  bytes.writeUInt32BE(error, chunkHeaderBytes);
  bytes.writeUInt16BE(text.length, chunkHeaderBytes + 4);
  bytes.set(text, chunkHeaderBytes + 6);
  return bytes;
}

/** One chunk for each meta context, in one buffer. */
export function blockStatusReply(
  request: Request,
  contexts: readonly { readonly id: number; readonly extents: readonly Extent[] }[],
): Uint8Array {
  const total = contexts.reduce((sum, { extents }) => sum + chunkHeaderBytes + 4 + 8 * extents.length, 0);
  const bytes = Buffer.allocUnsafe(total);
  let at = 0;
  for (const [index, { id, extents }] of contexts.entries()) {
    const flags = index === contexts.length - 1 ? chunkFlagDone : 0;
    at = writeChunkHeader(bytes, at, request, flags, chunkType.blockStatus, 4 + 8 * extents.length);
    at = bytes.writeUInt32BE(id, at);
    for (const extent of extents) {
      at = bytes.writeUInt32BE(extent.lengthBytes, at);
      at = bytes.writeUInt32BE(extent.flags, at);
    }
  }
  return bytes;
}

function simpleReply(request: Request, error: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(simpleHeaderBytes);
  bytes.writeUInt32BE(magic.simpleReply, 0);
  bytes.writeUInt32BE(error, 4);
  bytes.writeUInt32BE(request.cookieHigh, 8);
  bytes.writeUInt32BE(request.cookieLow, 12);
  return bytes;
}

/** Returns where the payload starts. */
function writeChunkHeader(
  bytes: Buffer,
  at: number,
  request: Request,
  flags: number,
  type: number,
  payloadBytes: number,
): number {
  bytes.writeUInt32BE(magic.structuredReply, at);
  bytes.writeUInt16BE(flags, at + 4);
  bytes.writeUInt16BE(type, at + 6);
  bytes.writeUInt32BE(request.cookieHigh, at + 8);
  bytes.writeUInt32BE(request.cookieLow, at + 12);
  return bytes.writeUInt32BE(payloadBytes, at + 16);
}

/** UTF-8, cut between characters. */
function shortened(message: string): Uint8Array {
  const bytes = Buffer.from(message);
  if (bytes.length <= maxMessageBytes) return bytes;
  let end = maxMessageBytes;
  while ((bytes[end] & 0xc0) === 0x80) end--;
  return bytes.subarray(0, end);
}
