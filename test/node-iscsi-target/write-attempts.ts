/** Everything by which an initiator could change a disk's content (SBC-4), tried; and how tgtd has the disk open. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import type { Probe } from "./probe.ts";

const blockBytes = 512;
const block = Buffer.alloc(blockBytes, 0xee);

/** A CDB of 16 bytes at most; `fields` are [at, bytes, value]. */
function cdb(operation: number, ...fields: readonly (readonly [number, number, number])[]): Buffer {
  const bytes = Buffer.alloc(16);
  bytes[0] = operation;
  for (const [at, lengthBytes, value] of fields) bytes.writeUIntBE(value, at, lengthBytes);
  return bytes;
}

/** UNMAP's parameter list: one descriptor, the first 8 blocks. */
function unmapList(): Buffer {
  const bytes = Buffer.alloc(24);
  bytes.writeUInt16BE(22, 0);
  bytes.writeUInt16BE(16, 2);
  bytes.writeUInt32BE(8, 16);
  return bytes;
}

const unmap = [1, 1, 0x08] as const;
const commands: Record<string, { readonly cdb: Buffer; readonly data: Buffer }> = {
  "WRITE(6)": { cdb: cdb(0x0a, [4, 1, 1]), data: block },
  "WRITE(10)": { cdb: cdb(0x2a, [7, 2, 1]), data: block },
  "WRITE(12)": { cdb: cdb(0xaa, [6, 4, 1]), data: block },
  "WRITE(16)": { cdb: cdb(0x8a, [10, 4, 1]), data: block },
  "WRITE AND VERIFY(10)": { cdb: cdb(0x2e, [7, 2, 1]), data: block },
  "WRITE AND VERIFY(12)": { cdb: cdb(0xae, [6, 4, 1]), data: block },
  "WRITE AND VERIFY(16)": { cdb: cdb(0x8e, [10, 4, 1]), data: block },
  "WRITE SAME(10)": { cdb: cdb(0x41, [7, 2, 8]), data: block },
  "WRITE SAME(10) with UNMAP": { cdb: cdb(0x41, unmap, [7, 2, 8]), data: Buffer.alloc(blockBytes) },
  "WRITE SAME(16)": { cdb: cdb(0x93, [10, 4, 8]), data: block },
  "WRITE SAME(16) with UNMAP": { cdb: cdb(0x93, unmap, [10, 4, 8]), data: Buffer.alloc(blockBytes) },
  "UNMAP": { cdb: cdb(0x42, [7, 2, 24]), data: unmapList() },
  "COMPARE AND WRITE": { cdb: cdb(0x89, [13, 1, 1]), data: Buffer.concat([block, block]) },
  "ORWRITE(16)": { cdb: cdb(0x8b, [10, 4, 1]), data: block },
  "FORMAT UNIT": { cdb: cdb(0x04), data: Buffer.alloc(0) },
  "SANITIZE": { cdb: cdb(0x48, [1, 1, 0x02]), data: Buffer.alloc(0) },
};

/** What each ended with: sense key and codes, "0/0/0" for GOOD. */
export async function tryToWrite(probe: Probe): Promise<Record<string, string>> {
  const results: Record<string, string> = {};
  for (const [name, { cdb, data }] of Object.entries(commands)) {
    results[name] = await probe.attempt(cdb, data);
  }
  return results;
}

/** Access modes of the process's descriptors of a disk: "O_RDONLY", "O_WRONLY", "O_RDWR". */
export function accessModesOf(pid: number, path: string): string[] {
  const disk = statSync(path);
  return readdirSync(`/proc/${pid}/fd`).flatMap((descriptor) => {
    const open = statSync(`/proc/${pid}/fd/${descriptor}`, { throwIfNoEntry: false });
    const isIt = open !== undefined &&
      (disk.isBlockDevice()
        ? open.isBlockDevice() && open.rdev === disk.rdev
        : open.ino === disk.ino && open.dev === disk.dev);
    if (!isIt) return [];
    const info = readFileSync(`/proc/${pid}/fdinfo/${descriptor}`, "utf8");
    const flags = parseInt(/^flags:\s+([0-7]+)$/m.exec(info)![1]!, 8);
    return [["O_RDONLY", "O_WRONLY", "O_RDWR"][flags & 3]!];
  });
}
