/** Messages that the server sends during the handshake (NBD proto.md, "Newstyle negotiation"). Pure. */
import { Buffer } from "node:buffer";
import { handshakeFlag, info, magic, maxPayloadBytes, optionReply, transmissionFlag } from "./protocol.ts";

export function greeting(): Uint8Array {
  const bytes = Buffer.alloc(18);
  bytes.writeBigUInt64BE(magic.greeting, 0);
  bytes.writeBigUInt64BE(magic.option, 8);
  bytes.writeUInt16BE(handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes, 16);
  return bytes;
}

/** The end of a handshake by NBD_OPT_EXPORT_NAME: no option reply, and 124 zeroes unless they are waived. */
export function exportNameReply(sizeBytes: number, structured: boolean, noZeroes: boolean): Uint8Array {
  const bytes = Buffer.alloc(noZeroes ? 10 : 134);
  bytes.writeBigUInt64BE(BigInt(sizeBytes), 0);
  bytes.writeUInt16BE(transmissionFlags(structured), 8);
  return bytes;
}

export function reply(option: number, type: number, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = Buffer.alloc(20 + data.length);
  bytes.writeBigUInt64BE(magic.optionReply, 0);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(type, 12);
  bytes.writeUInt32BE(data.length, 16);
  bytes.set(data, 20);
  return bytes;
}

export function errorReply(option: number, type: number, message: string): Uint8Array {
  return reply(option, type, Buffer.from(message));
}

export function serverReply(option: number, name: string, description: string): Uint8Array {
  const nameBytes = Buffer.from(name);
  return reply(
    option,
    optionReply.server,
    Buffer.concat([uint32(nameBytes.length), nameBytes, Buffer.from(description)]),
  );
}

export function metaContextReply(option: number, id: number, name: string): Uint8Array {
  return reply(option, optionReply.metaContext, Buffer.concat([uint32(id), Buffer.from(name)]));
}

export function infoExportReply(option: number, sizeBytes: number, structured: boolean): Uint8Array {
  const data = Buffer.alloc(12);
  data.writeUInt16BE(info.export, 0);
  data.writeBigUInt64BE(BigInt(sizeBytes), 2);
  data.writeUInt16BE(transmissionFlags(structured), 10);
  return reply(option, optionReply.info, data);
}

export function infoBlockSizeReply(option: number, preferredBlockBytes: number): Uint8Array {
  const data = Buffer.alloc(14);
  data.writeUInt16BE(info.blockSize, 0);
  data.writeUInt32BE(1, 2);
  data.writeUInt32BE(preferredBlockBytes, 6);
  data.writeUInt32BE(maxPayloadBytes, 10);
  return reply(option, optionReply.info, data);
}

/** NBD_INFO_NAME or NBD_INFO_DESCRIPTION. */
export function infoTextReply(option: number, type: number, text: string): Uint8Array {
  const data = Buffer.concat([Buffer.from([0, type]), Buffer.from(text)]);
  return reply(option, optionReply.info, data);
}

/** SEND_DF must be clear unless structured replies were agreed on. */
function transmissionFlags(structured: boolean): number {
  const flags = transmissionFlag;
  const always = flags.hasFlags | flags.sendFlush | flags.sendFua | flags.sendTrim | flags.sendWriteZeroes |
    flags.canMultiConn | flags.sendCache | flags.sendFastZero;
  return structured ? always | flags.sendDf : always;
}

function uint32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
