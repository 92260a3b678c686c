/** A migration's plan, for tests of what the destination role makes of it. */
import type { Plan } from "../../src/role/mod.ts";
import { destination as entry } from "../migration/entries.ts";

export function planOf(path: string, over: Partial<Plan> = {}): Plan {
  return {
    id: "abcd1234",
    diskCount: 1,
    network: { portal: { address: "127.0.0.1", port: 0 }, allow: "127.0.0.1", tunnel: null },
    path,
    force: false,
    sizeBytes: 1 << 20,
    blockBytes: 4096,
    activation: "explicit",
    bytesPerSecond: null,
    sourceTimeoutMs: null,
    source: entry.source,
    destinationReach: null,
    options: entry.options,
    failback: null,
    ...over,
  };
}
