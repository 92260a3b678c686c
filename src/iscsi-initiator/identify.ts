/** What is asked of a disk after each login. Pure: the commands go out through `execute`. */
import { ProtocolError, ScsiError } from "./errors.ts";
import type { Identity } from "./options.ts";
import * as scsi from "./scsi.ts";
import { senseKeys } from "./sense.ts";

/** Sends a command and gives its data, cut to what arrived. */
export type Execute = (command: scsi.ScsiCommand) => Promise<Uint8Array>;

/** Reads are cut to this, whatever the target allows: it bounds what one command holds up. */
const maxReadBytes = 1 << 20;

const pages = { serial: 0x80, blockLimits: 0xb0 } as const;

/** Throws if there is no disk behind the LUN, or none with which reads can work. */
export async function identify(execute: Execute): Promise<Identity> {
  await execute(scsi.testUnitReady());
  const { qualifier, deviceType } = scsi.parseInquiry(await execute(scsi.inquiry()));
  if (qualifier !== 0 || deviceType !== 0) {
    throw new ProtocolError(`there is no disk behind the LUN (device type ${deviceType})`);
  }
  const { blocks, ...capacity } = scsi.parseCapacity16(await execute(scsi.readCapacity16()));
  const supported = await supportedPages(execute);
  const serial = supported.includes(pages.serial)
    ? scsi.parseSerial(await execute(scsi.inquiry(pages.serial)))
    : "";
  const declared = supported.includes(pages.blockLimits)
    ? scsi.parseMaxTransferBlocks(await execute(scsi.inquiry(pages.blockLimits)))
    : 0;
  const ownLimit = maxReadBytes / capacity.blockBytes;
  const maxTransferBlocks = declared > 0 ? Math.min(declared, ownLimit) : ownLimit;
  return { sizeBytes: blocks * capacity.blockBytes, ...capacity, serial, maxTransferBlocks };
}

/** A target without any vital product data is unusual, but can be read from. */
async function supportedPages(execute: Execute): Promise<number[]> {
  try {
    return scsi.parseSupportedPages(await execute(scsi.inquiry(0)));
  } catch (error) {
    if (error instanceof ScsiError && error.sense?.key === senseKeys.illegalRequest) return [];
    throw error;
  }
}

/** How `found` differs from `expected` in what makes it the same disk; undefined if it does not. */
export function differenceOf(expected: Identity, found: Identity): string | undefined {
  for (const key of ["sizeBytes", "blockBytes", "serial"] as const) {
    if (expected[key] !== found[key]) {
      return `another disk answers: its ${key} is ${found[key]}, it was ${expected[key]}`;
    }
  }
  return undefined;
}
