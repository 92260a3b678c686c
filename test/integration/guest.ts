/** A client of a volume that knows what it must find there: single reads and writes, for tests that choose them. */
import * as assert from "uvu/assert";
import { MiB } from "../helpers/disk.ts";
import { within } from "../helpers/processes.ts";
import { fillSectors, type History, sectorBytes } from "../helpers/sectors.ts";
import type { NbdClient } from "./nbd-client.ts";

/** Of each read and write: whole blocks. */
export const pieceBytes = 64 * 1024;

/** Writes blocks and records it. */
export async function write(
  client: NbdClient,
  history: History,
  atMiB: number,
  value: number,
): Promise<void> {
  const first = atMiB * MiB / sectorBytes;
  history.begin(first, pieceBytes / sectorBytes, value);
  const data = fillSectors(new Uint8Array(pieceBytes), first, value);
  await within(client.write(atMiB * MiB, data), `a write at ${atMiB} MiB`);
  history.acknowledge(first, pieceBytes / sectorBytes, value);
}

/** Reads, and compares with what is recorded. */
export async function checkRead(client: NbdClient, history: History, atMiB: number): Promise<void> {
  const data = await within(client.read(atMiB * MiB, pieceBytes), `a read at ${atMiB} MiB`);
  assert.is(history.settle(atMiB * MiB / sectorBytes, data), undefined);
}
