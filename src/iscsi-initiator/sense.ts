/**
 * Sense data (SPC-4 §4.5): why a command ended with CHECK CONDITION. Pure.
 */

export interface Sense {
  /** 0 to 15 (SPC-4 table 28). */
  readonly key: number;
  /** Additional sense code and its qualifier. */
  readonly asc: number;
  readonly ascq: number;
  /** The sense is about an earlier command (response codes 0x71 and 0x73). */
  readonly deferred: boolean;
  /** The INFORMATION field, usually the first failing LBA; undefined if it is not valid. */
  readonly information: bigint | undefined;
  /** In words: "MEDIUM ERROR, unrecovered read error (3/11/00)". */
  readonly text: string;
}

export const senseKeys = {
  noSense: 0x0,
  recoveredError: 0x1,
  notReady: 0x2,
  mediumError: 0x3,
  hardwareError: 0x4,
  illegalRequest: 0x5,
  unitAttention: 0x6,
  dataProtect: 0x7,
  abortedCommand: 0xb,
} as const;

const keyNames = [
  "NO SENSE",
  "RECOVERED ERROR",
  "NOT READY",
  "MEDIUM ERROR",
  "HARDWARE ERROR",
  "ILLEGAL REQUEST",
  "UNIT ATTENTION",
  "DATA PROTECT",
  "BLANK CHECK",
  "VENDOR SPECIFIC",
  "COPY ABORTED",
  "ABORTED COMMAND",
  "reserved key C",
  "VOLUME OVERFLOW",
  "MISCOMPARE",
  "COMPLETED",
];

/** The codes that a read-only initiator is likely to meet (SPC-4 annex F), by `asc << 8 | ascq`. */
const codeTexts = new Map<number, string>([
  [0x0000, "no additional sense information"],
  [0x0400, "logical unit not ready, cause not reportable"],
  [0x0401, "logical unit is becoming ready"],
  [0x0402, "logical unit not ready, initializing command required"],
  [0x0403, "logical unit not ready, manual intervention required"],
  [0x0404, "logical unit not ready, format in progress"],
  [0x0407, "logical unit not ready, operation in progress"],
  [0x0800, "logical unit communication failure"],
  [0x0801, "logical unit communication time-out"],
  [0x1000, "ID CRC or ECC error"],
  [0x1100, "unrecovered read error"],
  [0x1101, "read retries exhausted"],
  [0x1500, "random positioning error"],
  [0x2000, "invalid command operation code"],
  [0x2100, "logical block address out of range"],
  [0x2400, "invalid field in CDB"],
  [0x2500, "logical unit not supported"],
  [0x2600, "invalid field in parameter list"],
  [0x2700, "write protected"],
  [0x2900, "power on, reset, or bus device reset occurred"],
  [0x2901, "power on occurred"],
  [0x2902, "SCSI bus reset occurred"],
  [0x2903, "bus device reset function occurred"],
  [0x2904, "device internal reset"],
  [0x2907, "I_T nexus loss occurred"],
  [0x2a00, "parameters changed"],
  [0x2a01, "mode parameters changed"],
  [0x2a09, "capacity data has changed"],
  [0x2f00, "commands cleared by another initiator"],
  [0x3a00, "medium not present"],
  [0x3f01, "microcode has been changed"],
  [0x3f03, "inquiry data has changed"],
  [0x3f0e, "reported LUNs data has changed"],
  [0x4400, "internal target failure"],
  [0x4700, "SCSI parity error"],
  [0x4b00, "data phase error"],
  [0x4e00, "overlapped commands attempted"],
  [0x5500, "system resource failure"],
]);

/** Decodes fixed or descriptor sense data; undefined if it is too short or of another format. */
export function parseSense(data: Uint8Array): Sense | undefined {
  if (data.length < 1) return undefined;
  const responseCode = data[0] & 0x7f;
  if (responseCode === 0x70 || responseCode === 0x71) return parseFixed(data, responseCode === 0x71);
  if (responseCode === 0x72 || responseCode === 0x73) return parseDescriptors(data, responseCode === 0x73);
  return undefined;
}

/** Fixed format (SPC-4 §4.5.3); a target may cut it short after the sense key. */
function parseFixed(data: Uint8Array, deferred: boolean): Sense | undefined {
  if (data.length < 3) return undefined;
  const information = (data[0] & 0x80) !== 0 && data.length >= 7
    ? BigInt(new DataView(data.buffer, data.byteOffset).getUint32(3))
    : undefined;
  const additionalBytes = data.length >= 8 ? Math.min(data.length, 8 + data[7]) : 0;
  const asc = additionalBytes > 12 ? data[12] : 0;
  const ascq = additionalBytes > 13 ? data[13] : 0;
  return makeSense(data[2] & 0xf, asc, ascq, deferred, information);
}

/** Descriptor format (SPC-4 §4.5.2); of the descriptors only INFORMATION (type 0) is of use here. */
function parseDescriptors(data: Uint8Array, deferred: boolean): Sense | undefined {
  if (data.length < 4) return undefined;
  let information: bigint | undefined;
  const end = data.length >= 8 ? Math.min(data.length, 8 + data[7]) : 0;
  for (let at = 8; at + 2 <= end; at += 2 + data[at + 1]) {
    const isInformation = data[at] === 0 && data[at + 1] === 0x0a && at + 12 <= end;
    if (isInformation && (data[at + 2] & 0x80) !== 0) {
      information = new DataView(data.buffer, data.byteOffset).getBigUint64(at + 4);
    }
  }
  return makeSense(data[1] & 0xf, data[2], data[3], deferred, information);
}

function makeSense(
  key: number,
  asc: number,
  ascq: number,
  deferred: boolean,
  information: bigint | undefined,
): Sense {
  const meaning = codeTexts.get(asc << 8 | ascq) ?? codeTexts.get(asc << 8);
  const code = `${key.toString(16).toUpperCase()}/${hexByte(asc)}/${hexByte(ascq)}`;
  const text = meaning === undefined
    ? `${keyNames[key]} (${code})`
    : `${keyNames[key]}, ${meaning} (${code})`;
  return { key, asc, ascq, deferred, information, text };
}

function hexByte(value: number): string {
  return value.toString(16).padStart(2, "0").toUpperCase();
}
