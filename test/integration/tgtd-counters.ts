/** What the tgtd behind a migration counts, beside what its engine says. */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { adoptDaemon } from "../../src/node-iscsi-target/mod.ts";
import type { DiskStatus } from "../../src/report/mod.ts";
import type { Dlsm } from "../helpers/dlsm.ts";

/** A GET LBA STATUS counts as what it may answer at most. */
export const lbaStatusBytes = 1024 * 1024;

export interface TgtdReads {
  readonly bytes: number;
  readonly commands: number;
}

/**
 * Bytes and commands that read the exported disk, in all sessions that live. Logging in reads a little too, so
 * look once before.
 */
export async function tgtdReads(dlsm: Dlsm, id: string): Promise<TgtdReads> {
  const daemon = await adoptDaemon(join(dlsm.environment.DLSM_RUN_DIR, id, "src", "tgt"));
  if (daemon === undefined) throw new Error("tgtd does not run");
  const [target] = await daemon.targets();
  const rows = (await daemon.statistics(target.tid)).filter(({ lun }) => lun === 1);
  if (rows.length !== 2) throw new Error(`${rows.length} sessions: ${JSON.stringify(rows)}`);
  for (const { write } of rows) if (write.submittedCommands > 0) throw new Error("somebody wrote the source");
  const sum = (pick: (row: typeof rows[number]) => number) => rows.reduce((all, row) => all + pick(row), 0);
  return { bytes: sum(({ read }) => read.doneBytes), commands: sum(({ read }) => read.doneCommands) };
}

/** What the engine says came over the network. */
export function fetchedBytes({ fetchedBytes: { demand, readahead, sync } }: DiskStatus): number {
  return demand + readahead + sync;
}

/**
 * Polls until tgtd has read just what the engine says it fetched, and `otherBytes` besides (what is in flight
 * shows on one side first); throws when they do not come together.
 */
export async function untilTgtdAgrees(
  dlsm: Dlsm,
  id: string,
  before: TgtdReads,
  otherBytes: number,
): Promise<DiskStatus> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const reads = await tgtdReads(dlsm, id);
    const { disks: [disk] } = (await dlsm.status(id))!;
    const read = reads.bytes - before.bytes;
    if (read === fetchedBytes(disk) + otherBytes) return disk;
    if (performance.now() > deadline) {
      const off = read - fetchedBytes(disk) - otherBytes;
      throw new Error(`tgtd read ${off} bytes more than the engine says: ${JSON.stringify(disk)}`);
    }
    await sleep(50);
  }
}
