/** What one seed tries: drawn before anything happens, so that parts of it can be left out when it fails. */
import { pageBlocks } from "../../../src/engine/residency.ts";
import { Random } from "../../engine/memory.ts";

/** What may go wrong, or be asked for; a scenario has some of them. */
export const features = [
  "outages",
  "mediumErrors",
  "holes",
  "diskErrors",
  "diskFull",
  "syncErrors",
  "mapFull",
  "crashes",
  "powerLoss",
  "restarts",
  "stalls",
  "sourceTimeout",
  "rateLimit",
  "pauses",
  "reads",
  "writes",
  "trims",
  "zeroes",
  "flushes",
  "fua",
  "prefetches",
  "queries",
  "sourceChanges",
] as const;
export type Feature = (typeof features)[number];

export interface Scenario {
  readonly seed: number;
  readonly has: ReadonlySet<Feature>;
  readonly blockBytes: number;
  /** A multiple of 512, and mostly not of the block. */
  readonly sizeBytes: number;
  /** The bytes where most of what users do happens: all, or those around the border of two pages of the map. */
  readonly busy: { readonly from: number; readonly to: number };
  /** The local disk is new and reads as zeroes; else it holds something. */
  readonly localZero: boolean;
  readonly activation: "explicit" | "first-write";
  readonly demandBytes: number;
  readonly demandFetches: number;
  readonly chunkBytes: number;
  readonly syncFetches: number;
  readonly clients: number;
  /** Requests of all clients together. */
  readonly requests: number;
  /** Between a client's requests, on average. */
  readonly thinkMs: number;
  readonly sourceMs: number;
  readonly diskMs: number;
  /** Between two things that go wrong, on average. */
  readonly faultMs: number;
  /** Longest request, in grains. */
  readonly longest: number;
}

const common: readonly Feature[] = ["reads", "writes", "flushes"];

export interface Restriction {
  readonly without?: readonly string[];
  readonly requests?: number;
}

export function scenarioOf(seed: number, { without = [], requests }: Restriction = {}): Scenario {
  const random = new Random(seed);
  const has = new Set<Feature>();
  // A third of the seeds has no faults of its own but a few: what is rare alone is found with less around it.
  const richness = [0.2, 0.5, 0.8][random.below(3)];
  for (const feature of features) {
    const isIn = random.chance(common.includes(feature) ? 0.9 : richness);
    if (isIn && !without.includes(feature)) has.add(feature);
  }
  const blockBytes = random.chance(0.05) ? 65_536 : [512, 1024, 4096][random.below(3)];
  const most = blockBytes === 65_536 ? 8 : random.chance(0.2) ? 200 : 40;
  const blocks = 4 + random.below(most);
  const shortSectors = random.chance(0.7) ? random.below(blockBytes / 512) : 0;
  const sizeBytes = blocks * blockBytes + shortSectors * 512;
  const pick = <T>(...values: readonly T[]): T => values[random.below(values.length)];
  const scenario: Scenario = {
    seed,
    has,
    blockBytes,
    sizeBytes,
    busy: { from: 0, to: sizeBytes },
    localZero: random.chance(0.6),
    activation: pick("explicit", "first-write"),
    demandBytes: Math.max(blockBytes, Math.min(65_536, blockBytes * pick(1, 2, 8))),
    demandFetches: pick(1, 2, 6, 48),
    chunkBytes: blockBytes * pick(1, 3, 8),
    syncFetches: pick(1, 2, 5),
    clients: 1 + random.below(4),
    requests: requests ?? 30 + random.below(170),
    thinkMs: pick(0.5, 3, 20),
    sourceMs: pick(0.5, 4, 30),
    diskMs: pick(0.1, 1, 8),
    faultMs: pick(20, 80, 400),
    longest: (blockBytes / 128) * pick(1, 2, 6) + random.below(8),
  };
  const wide = new Random(seed ^ 0x91de);
  return wide.chance(0.01) ? widened(scenario, wide) : scenario;
}

/** The same on a disk whose map has two pages, or three. */
function widened(scenario: Scenario, random: Random): Scenario {
  const blockBytes = 512;
  const pages = 1 + random.below(2);
  const border = (1 + random.below(pages)) * pageBlocks * blockBytes;
  const sizeBytes = (pages * pageBlocks + 4 + random.below(60)) * blockBytes;
  return {
    ...scenario,
    blockBytes,
    sizeBytes,
    busy: { from: border - 60 * blockBytes, to: Math.min(sizeBytes, border + 60 * blockBytes) },
    chunkBytes: 262_144,
    longest: 4 * [1, 2, 6][random.below(3)] + random.below(8),
  };
}
