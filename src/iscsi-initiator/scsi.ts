/**
 * The SCSI commands that the initiator knows (SPC-4, SBC-3): CDBs out, parameter data in. Pure.
 *
 * Read-only by construction: there is no command here that changes the medium.
 */
import { ProtocolError } from "./errors.ts";

/** What a CDB asks for; `allocationBytes` is the most that the target may send back. */
export interface ScsiCommand {
  readonly name: string;
  /** 16 bytes, shorter CDBs padded with zeroes, as the BHS carries them. */
  readonly cdb: Uint8Array;
  readonly allocationBytes: number;
}

function command(name: string, cdbBytes: number[], allocationBytes: number): ScsiCommand {
  const cdb = new Uint8Array(16);
  cdb.set(cdbBytes);
  return { name, cdb, allocationBytes };
}

/** SPC-4 §6.47. */
export function testUnitReady(): ScsiCommand {
  return command("TEST UNIT READY", [0x00], 0);
}

/** SPC-4 §6.6; `page` asks for a page of vital product data. */
export function inquiry(page?: number): ScsiCommand {
  const allocationBytes = 255;
  const name = page === undefined ? "INQUIRY" : `INQUIRY of VPD page ${page.toString(16)}h`;
  return command(name, [0x12, page === undefined ? 0 : 1, page ?? 0, 0, allocationBytes], allocationBytes);
}

/** READ CAPACITY(16), SBC-3 §5.16. */
export function readCapacity16(): ScsiCommand {
  const built = command("READ CAPACITY(16)", [0x9e, 0x10], 32);
  built.cdb[13] = 32;
  return built;
}

/** SPC-4 §6.33. `allocationBytes` at least 16. */
export function reportLuns(allocationBytes: number): ScsiCommand {
  const built = command("REPORT LUNS", [0xa0], allocationBytes);
  new DataView(built.cdb.buffer).setUint32(6, allocationBytes);
  return built;
}

/** READ(16), SBC-3 §5.12. `lba` up to 2^53 - 1. */
export function read16(lba: number, blocks: number, blockBytes: number): ScsiCommand {
  const built = command("READ(16)", [0x88], blocks * blockBytes);
  const view = new DataView(built.cdb.buffer);
  setLba(view, lba);
  view.setUint32(10, blocks);
  return built;
}

/** GET LBA STATUS, SBC-3 §5.5. `allocationBytes` at least 24. */
export function getLbaStatus(lba: number, allocationBytes: number): ScsiCommand {
  const built = command("GET LBA STATUS", [0x9e, 0x12], allocationBytes);
  const view = new DataView(built.cdb.buffer);
  setLba(view, lba);
  view.setUint32(10, allocationBytes);
  return built;
}

function setLba(view: DataView, lba: number): void {
  view.setUint32(2, Math.floor(lba / 2 ** 32));
  view.setUint32(6, lba % 2 ** 32);
}

export interface Capacity {
  readonly blocks: number;
  readonly blockBytes: number;
  readonly physicalBlockBytes: number;
  readonly deallocatedReadsZero: boolean;
}

/** SBC-3 §5.16.2. Disks of 2^53 bytes or more are refused. */
export function parseCapacity16(data: Uint8Array): Capacity {
  if (data.length < 12) throw new ProtocolError(`READ CAPACITY(16) answered ${data.length} bytes, not 32`);
  const view = viewOf(data);
  const blocks = Number(view.getBigUint64(0)) + 1;
  const blockBytes = view.getUint32(8);
  const isPowerOfTwo = blockBytes > 0 && (blockBytes & (blockBytes - 1)) === 0;
  if (!isPowerOfTwo || blockBytes < 512 || blockBytes > 1 << 20) {
    throw new ProtocolError(
      `the disk has blocks of ${blockBytes} bytes; a power of two from 512 to 1 MiB is needed`,
    );
  }
  if (blocks * blockBytes > Number.MAX_SAFE_INTEGER) {
    throw new ProtocolError(`the disk has ${blocks} blocks of ${blockBytes} bytes, more than 2^53 bytes`);
  }
  const exponent = data.length > 13 ? data[13] & 0xf : 0;
  const deallocatedReadsZero = data.length > 14 && (data[14] & 0x40) !== 0;
  return { blocks, blockBytes, physicalBlockBytes: blockBytes * 2 ** exponent, deallocatedReadsZero };
}

export interface InquiryData {
  /** 0 is a connected direct-access device; 1 to 3 mean that there is no device behind this LUN. */
  readonly qualifier: number;
  /** 0 is a disk, 12 a storage controller. */
  readonly deviceType: number;
  readonly vendor: string;
  readonly product: string;
  readonly revision: string;
}

/** Standard INQUIRY data, SPC-4 §6.6.2. */
export function parseInquiry(data: Uint8Array): InquiryData {
  if (data.length < 36) {
    throw new ProtocolError(`INQUIRY answered ${data.length} bytes, at least 36 are needed`);
  }
  return {
    qualifier: data[0] >> 5,
    deviceType: data[0] & 0x1f,
    vendor: text(data.subarray(8, 16)),
    product: text(data.subarray(16, 32)),
    revision: text(data.subarray(32, 36)),
  };
}

/** The body of a VPD page (SPC-4 §7.8), cut to what arrived. */
function vpdBody(data: Uint8Array, page: number): Uint8Array {
  if (data.length < 4 || data[1] !== page) {
    throw new ProtocolError(`the answer to INQUIRY is not VPD page ${page.toString(16)}h`);
  }
  return data.subarray(4, Math.min(data.length, 4 + viewOf(data).getUint16(2)));
}

/** Supported VPD pages, page 00h (SPC-4 §7.8.14). */
export function parseSupportedPages(data: Uint8Array): number[] {
  return [...vpdBody(data, 0x00)];
}

/** Unit serial number, page 80h (SPC-4 §7.8.15). */
export function parseSerial(data: Uint8Array): string {
  return text(vpdBody(data, 0x80));
}

/** Block limits, page B0h (SBC-3 §6.6.4); 0 means that the target declares no limit. */
export function parseMaxTransferBlocks(data: Uint8Array): number {
  const body = vpdBody(data, 0xb0);
  return body.length >= 8 ? viewOf(body).getUint32(4) : 0;
}

export interface Designator {
  /** 1 T10, 2 EUI-64, 3 NAA, 8 SCSI name string (SPC-4 table 589). */
  readonly type: number;
  /** 0 the logical unit, 1 the port, 2 the device. */
  readonly association: number;
  /** Text designators as text, binary ones as lower-case hex. */
  readonly id: string;
}

/** Device identification, page 83h (SPC-4 §7.8.5). A designator that is cut short ends the list. */
export function parseDesignators(data: Uint8Array): Designator[] {
  const body = vpdBody(data, 0x83);
  const found: Designator[] = [];
  for (let at = 0; at + 4 <= body.length;) {
    const idBytes = body[at + 3];
    if (at + 4 + idBytes > body.length) break;
    const id = body.subarray(at + 4, at + 4 + idBytes);
    const isBinary = (body[at] & 0xf) === 1;
    found.push({
      type: body[at + 1] & 0xf,
      association: (body[at + 1] >> 4) & 3,
      id: isBinary ? Array.from(id, (byte) => byte.toString(16).padStart(2, "0")).join("") : text(id),
    });
    at += 4 + idBytes;
  }
  return found;
}

/** Single-level LUNs of a REPORT LUNS answer (SPC-4 §6.33.2); others are left out. */
export function parseLuns(data: Uint8Array): { luns: number[]; neededBytes: number } {
  if (data.length < 8) throw new ProtocolError(`REPORT LUNS answered ${data.length} bytes`);
  const view = viewOf(data);
  const neededBytes = 8 + view.getUint32(0);
  const luns: number[] = [];
  for (let at = 8; at + 8 <= Math.min(data.length, neededBytes); at += 8) {
    const method = data[at] >> 6;
    const isSingleLevel = view.getUint32(at + 4) === 0 && view.getUint16(at + 2) === 0 && method < 2;
    if (isSingleLevel) luns.push(view.getUint16(at) & 0x3fff);
  }
  return { luns, neededBytes };
}

export interface LbaExtent {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** False: deallocated, so without data of its own. Anchored counts as mapped. */
  readonly mapped: boolean;
}

/**
 * The descriptors of a GET LBA STATUS answer (SBC-3 §5.5.2), as sent, except that the last is cut at the end
 * of the disk. They ascend and do not overlap, but may leave gaps, which the caller takes as mapped.
 */
export function parseLbaStatus(data: Uint8Array, blockBytes: number, sizeBytes: number): LbaExtent[] {
  if (data.length < 8) throw new ProtocolError(`GET LBA STATUS answered ${data.length} bytes`);
  const view = viewOf(data);
  const end = Math.min(data.length, 4 + view.getUint32(0));
  const extents: LbaExtent[] = [];
  let previousEnd = 0;
  for (let at = 8; at + 16 <= end; at += 16) {
    const offsetBytes = Number(view.getBigUint64(at)) * blockBytes;
    const lengthBytes = view.getUint32(at + 8) * blockBytes;
    if (lengthBytes === 0) continue;
    if (offsetBytes < previousEnd || offsetBytes >= sizeBytes) {
      throw new ProtocolError(
        `GET LBA STATUS answered an extent at byte ${offsetBytes}, out of order or range`,
      );
    }
    previousEnd = offsetBytes + lengthBytes;
    const cutBytes = Math.min(lengthBytes, sizeBytes - offsetBytes);
    extents.push({ offsetBytes, lengthBytes: cutBytes, mapped: (data[at + 12] & 0xf) !== 1 });
  }
  return extents;
}

/** The 8-byte LUN field: peripheral addressing below 256, flat space above (SAM-5 §4.7.7). */
export function lunField(lun: number): Uint8Array {
  const field = new Uint8Array(8);
  field[0] = lun < 256 ? 0 : 0x40 | lun >> 8;
  field[1] = lun & 0xff;
  return field;
}

function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.length);
}

/** ASCII with padding removed; anything unprintable becomes "?". */
function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("latin1").replace(/[\0 ]+$/, "").trimStart().replace(
    /[^\x20-\x7e]/g,
    "?",
  );
}
