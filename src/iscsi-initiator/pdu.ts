/** PDUs of RFC 7143 §11: building those of an initiator, reading the header of those of a target. Pure. */
import { crc32c } from "./crc32c.ts";
import type { LoginRequest, LoginResponse } from "./login.ts";

export const headerBytes = 48;

export const opcodes = {
  nopOut: 0x00,
  scsiCommand: 0x01,
  loginRequest: 0x03,
  logoutRequest: 0x06,
  nopIn: 0x20,
  scsiResponse: 0x21,
  loginResponse: 0x23,
  dataIn: 0x25,
  logoutResponse: 0x26,
  asyncMessage: 0x32,
  reject: 0x3f,
} as const;

/** "No task": the reserved value of initiator and target transfer tags. */
export const noTag = 0xffffffff;

/** The opcode's bit that takes a request out of the CmdSN order. */
const immediate = 0x40;
const final = 0x80;

export interface Digests {
  readonly header: boolean;
  readonly data: boolean;
}

export const noDigests: Digests = { header: false, data: false };

/** What every request carries. */
export interface Numbers {
  readonly cmdSN: number;
  readonly expStatSN: number;
}

function header(opcode: number, flags: number, tag: number, numbers: Numbers): [Uint8Array, DataView] {
  const bytes = new Uint8Array(headerBytes);
  const view = new DataView(bytes.buffer);
  bytes[0] = opcode;
  bytes[1] = flags;
  view.setUint32(16, tag);
  view.setUint32(24, numbers.cmdSN);
  view.setUint32(28, numbers.expStatSN);
  return [bytes, view];
}

/** The whole PDU: header, data segment with padding, digests. */
function assemble(bhs: Uint8Array, data: Uint8Array, digests: Digests): Uint8Array {
  new DataView(bhs.buffer).setUint32(4, data.length);
  const dataAt = headerBytes + (digests.header ? 4 : 0);
  const paddedBytes = (data.length + 3) & ~3;
  const hasDataDigest = digests.data && data.length > 0;
  const pdu = new Uint8Array(dataAt + paddedBytes + (hasDataDigest ? 4 : 0));
  const view = new DataView(pdu.buffer);
  pdu.set(bhs);
  if (digests.header) view.setUint32(headerBytes, crc32c(bhs), true);
  pdu.set(data, dataAt);
  if (hasDataDigest) {
    const padded = pdu.subarray(dataAt, dataAt + paddedBytes);
    view.setUint32(dataAt + paddedBytes, crc32c(padded), true);
  }
  return pdu;
}

const noData = new Uint8Array();

/** SCSI Command for a read (or for no data at all), simple task attribute (RFC 7143 §11.3). */
export function buildScsiCommand(
  tag: number,
  lun: Uint8Array,
  cdb: Uint8Array,
  expectedBytes: number,
  numbers: Numbers,
  digests: Digests,
): Uint8Array {
  const read = 0x40;
  const simple = 1;
  const flags = final | simple | (expectedBytes > 0 ? read : 0);
  const [bytes, view] = header(opcodes.scsiCommand, flags, tag, numbers);
  bytes.set(lun, 8);
  view.setUint32(20, expectedBytes);
  bytes.set(cdb, 32);
  return assemble(bytes, noData, digests);
}

/** Login Request of a new session (RFC 7143 §11.12); never with digests. */
export function buildLoginRequest(request: LoginRequest, isid: Uint8Array, numbers: Numbers): Uint8Array {
  const flags = (request.transit ? 0x80 : 0) | (request.continues ? 0x40 : 0) | request.stage << 2 |
    (request.transit ? request.nextStage : 0);
  const [bytes] = header(opcodes.loginRequest | immediate, flags, 0, numbers);
  bytes.set(isid, 8);
  return assemble(bytes, request.text, noDigests);
}

/** NOP-Out: a ping with a tag of its own, or the answer to the target's (RFC 7143 §11.18). */
export function buildNopOut(
  tag: number,
  targetTag: number,
  lun: Uint8Array,
  numbers: Numbers,
  digests: Digests,
): Uint8Array {
  const [bytes, view] = header(opcodes.nopOut | immediate, final, tag, numbers);
  bytes.set(lun, 8);
  view.setUint32(20, targetTag);
  return assemble(bytes, noData, digests);
}

/** Logout Request that closes the session (RFC 7143 §11.14). */
export function buildLogout(tag: number, numbers: Numbers, digests: Digests): Uint8Array {
  const [bytes] = header(opcodes.logoutRequest | immediate, final, tag, numbers);
  return assemble(bytes, noData, digests);
}

/** The basic header segment of a PDU from the target. */
export class Header {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  /** `bytes` may be reused for the next header. */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, headerBytes);
  }

  get opcode(): number {
    return this.bytes[0] & 0x3f;
  }
  get flags(): number {
    return this.bytes[1];
  }
  /** RFC 7143 §11.4.3: 0 "command completed at target", 1 "target failure". */
  get response(): number {
    return this.bytes[2];
  }
  get scsiStatus(): number {
    return this.bytes[3];
  }
  get additionalBytes(): number {
    return this.bytes[4] * 4;
  }
  get dataBytes(): number {
    return this.#view.getUint32(4) & 0xffffff;
  }
  get lun(): Uint8Array {
    return this.bytes.slice(8, 16);
  }
  get tag(): number {
    return this.#view.getUint32(16);
  }
  get targetTag(): number {
    return this.#view.getUint32(20);
  }
  get statSN(): number {
    return this.#view.getUint32(24);
  }
  get expCmdSN(): number {
    return this.#view.getUint32(28);
  }
  get maxCmdSN(): number {
    return this.#view.getUint32(32);
  }
  get dataSN(): number {
    return this.#view.getUint32(36);
  }
  get bufferOffset(): number {
    return this.#view.getUint32(40);
  }
  get residualBytes(): number {
    return this.#view.getUint32(44);
  }
  get asyncEvent(): number {
    return this.bytes[36];
  }
  /** Asynchronous Message, second and third parameter: seconds (RFC 7143 §11.9). */
  get parameter2(): number {
    return this.#view.getUint16(40);
  }
  get parameter3(): number {
    return this.#view.getUint16(42);
  }
}

/** S of a Data-In: status and residual are valid. */
export const statusFlag = 0x01;
/** O and U of a SCSI Response or a Data-In with S. */
export const overflowFlag = 0x04;
export const underflowFlag = 0x02;

export function readLoginResponse(header: Header, text: Uint8Array): LoginResponse {
  return {
    transit: (header.flags & 0x80) !== 0,
    continues: (header.flags & 0x40) !== 0,
    stage: header.flags >> 2 & 3,
    nextStage: header.flags & 3,
    statusClass: header.bytes[36],
    statusDetail: header.bytes[37],
    text,
  };
}
