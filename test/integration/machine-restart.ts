/** A restart of the machine, imitated: no process is left, and nothing counts but what is in the state folder. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { encodeHeader, newestHeader, slotBytes } from "../../src/engine/map-layout.ts";
import type { Dlsm } from "../helpers/dlsm.ts";

/** A map's headers as they were written in the boot before. */
export function ageMap(path: string): void {
  const bytes = readFileSync(path);
  const header = newestHeader([bytes.subarray(0, slotBytes), bytes.subarray(slotBytes, 2 * slotBytes)])!;
  const old = encodeHeader({ ...header, bootId: "the boot before" });
  for (const slot of [0, slotBytes]) bytes.set(old, slot);
  writeFileSync(path, bytes);
}

/** The run folder, which is in memory, is gone; all processes were killed before. */
export function forgetRunFolder({ environment }: Dlsm, id: string): void {
  rmSync(environment.DLSM_RUN_DIR!, { recursive: true });
  ageMap(join(environment.DLSM_STATE_DIR!, "destination", id, "residency.map"));
}
