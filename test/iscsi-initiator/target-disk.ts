/** The disk behind a scripted or simulated target, and what it answers to the commands that it knows. Pure. */

export const blockBytes = 512;
export const diskBlocks = 1 << 20;

export interface TargetDisk {
  /** At most 20 characters of ASCII. */
  readonly serial: string;
  readonly blocks: number;
  /** The longest read in blocks, as the target declares it; 0: no limit is declared. */
  readonly maxTransferBlocks: number;
  fill(into: Uint8Array, lba: number): void;
}

/** What block `lba` of the disk holds: in every 8 bytes their own address, so that no two blocks are alike. */
export function fillBlocks(into: Uint8Array, lba: number): void {
  const view = new DataView(into.buffer, into.byteOffset, into.length);
  for (let at = 0; at < into.length; at += 8) {
    view.setUint32(at, lba + Math.floor(at / blockBytes));
    view.setUint32(at + 4, 0xb10c0000 + at % blockBytes);
  }
}

export const healthyDisk: TargetDisk = {
  serial: "SCRIPTED-1",
  blocks: diskBlocks,
  maxTransferBlocks: 0,
  fill: fillBlocks,
};

/** Fixed format (SPC-4 §4.5.3). */
export function fixedSense(key: number, asc: number, ascq: number): Uint8Array {
  const sense = new Uint8Array(18);
  sense.set([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq]);
  return sense;
}

/** The data of a command's answer; undefined if the disk does not know the command. */
export function answerData(disk: TargetDisk, cdb: Uint8Array, expectedBytes: number): Uint8Array | undefined {
  const view = new DataView(cdb.buffer, cdb.byteOffset, 16);
  if (cdb[0] === 0x00) return new Uint8Array();
  if (cdb[0] === 0x12) return inquiryData(disk, cdb);
  if (cdb[0] === 0x9e && cdb[1] === 0x10) {
    const capacity = Buffer.alloc(32);
    capacity.writeBigUInt64BE(BigInt(disk.blocks - 1), 0);
    capacity.writeUInt32BE(blockBytes, 8);
    return capacity;
  }
  if (cdb[0] === 0x88) {
    const data = new Uint8Array(expectedBytes);
    disk.fill(data, Number(view.getBigUint64(2)));
    return data;
  }
  return undefined;
}

function inquiryData(disk: TargetDisk, cdb: Uint8Array): Uint8Array {
  if ((cdb[1] & 1) === 0) return Buffer.from("\0\0\x06\x02\x1f\0\0\0SCRIPTEDDISK            0001", "latin1");
  const limits = new Uint8Array(60);
  new DataView(limits.buffer).setUint32(4, disk.maxTransferBlocks);
  const pages: Record<number, Uint8Array> = {
    0: Uint8Array.of(0x00, 0x80, 0xb0),
    0x80: Buffer.from(disk.serial),
    0xb0: limits,
  };
  const body = pages[cdb[2]] ?? new Uint8Array();
  return Uint8Array.from([0, cdb[2], 0, body.length, ...body]);
}
