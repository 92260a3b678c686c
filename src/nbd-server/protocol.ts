/** Numbers of the NBD protocol (NBD proto.md, "Values"). Every integer on the wire is big-endian. Pure. */

export const magic = {
  /** "NBDMAGIC" */
  greeting: 0x4e42444d41474943n,
  /** "IHAVEOPT": the greeting's second word and the start of each option. */
  option: 0x49484156454f5054n,
  optionReply: 0x0003e889045565a9n,
  request: 0x25609513,
  simpleReply: 0x67446698,
  structuredReply: 0x668e33ef,
} as const;

/** Handshake flags of the server; the client answers with the same bits. */
export const handshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const option = {
  exportName: 1,
  abort: 2,
  list: 3,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
} as const;

export const optionReply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errorUnsupported: 0x80000001,
  errorInvalid: 0x80000003,
  errorUnknown: 0x80000006,
  errorTooBig: 0x80000009,
} as const;

/** Information types of NBD_OPT_INFO and NBD_OPT_GO. */
export const info = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

export const transmissionFlag = {
  hasFlags: 1 << 0,
  sendFlush: 1 << 2,
  sendFua: 1 << 3,
  sendTrim: 1 << 5,
  sendWriteZeroes: 1 << 6,
  sendDf: 1 << 7,
  canMultiConn: 1 << 8,
  sendCache: 1 << 10,
  sendFastZero: 1 << 11,
} as const;

export const command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

export const commandFlag = {
  fua: 1 << 0,
  noHole: 1 << 1,
  df: 1 << 2,
  reqOne: 1 << 3,
  fastZero: 1 << 4,
} as const;

export const chunkType = {
  none: 0,
  offsetData: 1,
  blockStatus: 5,
  error: 0x8001,
} as const;

/** Structured reply flag: the last chunk of this reply. */
export const chunkFlagDone = 1;

export const requestHeaderBytes = 28;
export const optionHeaderBytes = 16;

/** Longest string the protocol allows (names, queries, messages). */
export const maxStringBytes = 4096;

/** Largest READ, WRITE and CACHE, advertised as the maximum payload size. */
export const maxPayloadBytes = 32 * 1024 * 1024;

/** A refused WRITE's payload is read and thrown away up to this size; a longer one ends the connection. */
export const maxDrainedPayloadBytes = 2 * maxPayloadBytes;

/** A READ or WRITE that there is no room for is executed in parts of at most this; at least any device's block. */
export const partBytes = 1024 * 1024;

/** The peer broke the protocol in a way that leaves no common ground: its connection is dropped. */
export class NbdProtocolError extends Error {
  override readonly name = "NbdProtocolError";
}
