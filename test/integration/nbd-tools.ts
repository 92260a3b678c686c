/** The command-line NBD clients, as the tests of whole migrations use them. */
import { execa } from "execa";

/** Standard output; throws with all output if the program fails. */
export async function runTool(program: string, ...parameters: string[]): Promise<string> {
  return (await execa(program, parameters, { timeout: 120_000 })).stdout;
}

export type MapExtent = readonly [offset: number, length: number, type: number];

/** `nbdinfo --map`, of the context given. Neighbours that are alike are one extent. */
export async function nbdMap(uri: string, context = "base:allocation"): Promise<MapExtent[]> {
  const text = await runTool("nbdinfo", "--json", `--map=${context}`, uri);
  const extents: [number, number, number][] = [];
  for (const { offset, length, type } of JSON.parse(text) as Record<"offset" | "length" | "type", number>[]) {
    const last = extents.at(-1);
    if (last?.[2] === type) last[1] += length;
    else extents.push([offset, length, type]);
  }
  return extents;
}

/** States of blocks in `dlsm:residency`. */
export const states = { absent: 0, fetched: 1, written: 2 } as const;
