/** A residency map as an engine leaves it, and what must be in it. */
import { type Plane, planes, residency } from "../../src/engine/residency.ts";
import { ResidencyStore } from "../../src/engine/residency-store.ts";
import fc from "fast-check";
import { MemoryMapFile } from "../engine/memory.ts";

export const blockBytes = 4096;

export type Step =
  | { readonly kind: "mark"; readonly first: number; readonly count: number; readonly plane: Plane }
  | { readonly kind: "checkpoint" }
  | { readonly kind: "activate" }
  | { readonly kind: "restart" };

export interface History {
  readonly volumeId: string;
  readonly blockCount: number;
  readonly steps: readonly Step[];
  /** The engine stopped in good order. */
  readonly isClosed: boolean;
}

/** Small ones, such that end within a page, and such that have several. */
export const blockCounts = [1, 100, 16_384, 20_000, 40_000] as const;

export const history: fc.Arbitrary<History> = fc.constantFrom(...blockCounts).chain((blockCount) =>
  fc.record({
    volumeId: fc.constant("volume-a"),
    blockCount: fc.constant(blockCount),
    steps: fc.array(step(blockCount), { maxLength: 10 }),
    isClosed: fc.boolean(),
  })
);

function step(blockCount: number): fc.Arbitrary<Step> {
  return fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constant("mark" as const),
        first: fc.nat(blockCount - 1),
        count: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: blockCount })),
        plane: fc.constantFrom(planes.crossed, planes.written),
      }).map((mark) => ({ ...mark, count: Math.min(mark.count, blockCount - mark.first) })),
    },
    { weight: 2, arbitrary: fc.constant<Step>({ kind: "checkpoint" }) },
    { weight: 1, arbitrary: fc.constant<Step>({ kind: "activate" }) },
    { weight: 1, arbitrary: fc.constant<Step>({ kind: "restart" }) },
  );
}

export class MapCopy extends MemoryMapFile {
  constructor(bytes: Uint8Array = new Uint8Array()) {
    super();
    this.bytes = bytes.slice();
  }
}

export interface Left {
  readonly durable: Uint8Array;
  readonly live: Uint8Array;
  /** The durable file at each checkpoint before. */
  readonly older: readonly Uint8Array[];
  /** Per block the bits 1 << plane: all that were marked, and those that are durable. */
  readonly marked: Uint8Array;
  readonly checkpointed: Uint8Array;
  readonly isActivated: boolean;
}

export const identityOf = ({ blockCount, volumeId }: Pick<History, "blockCount" | "volumeId">) => ({
  sizeBytes: blockCount * blockBytes - (blockCount > 1 ? 512 : 0),
  blockBytes,
  volumeId,
  bootId: "boot-1",
});

export async function live(history: History): Promise<Left> {
  let files = { durable: new MapCopy(), live: new MapCopy() };
  const identity = identityOf(history);
  let store = await ResidencyStore.create(files, { ...identity, localZero: true });
  const marked = new Uint8Array(history.blockCount);
  let checkpointed = marked.slice();
  const older: Uint8Array[] = [];
  const checkpoint = async () => {
    older.push(files.durable.bytes.slice());
    await store.checkpoint(() => Promise.resolve());
    checkpointed = marked.slice();
  };
  for (const step of history.steps) {
    if (step.kind === "mark") {
      store.mark(step.first, step.count, step.plane);
      for (let at = step.first; at < step.first + step.count; at++) marked[at]! |= 1 << step.plane;
    } else if (step.kind === "checkpoint") await checkpoint();
    else if (step.kind === "activate") await store.activate();
    else {
      files = { durable: new MapCopy(files.durable.bytes), live: new MapCopy(files.live.bytes) };
      store = await ResidencyStore.open(files, identity);
    }
  }
  if (history.isClosed) {
    await checkpoint();
    await store.close();
  }
  const { durable, live } = files;
  return {
    durable: durable.bytes,
    live: live.bytes,
    older,
    marked,
    checkpointed,
    isActivated: store.activated,
  };
}

/** Per block the bits 1 << plane that the map has. */
export function bitsOf({ map }: Pick<ResidencyStore, "map">): Uint8Array {
  return Uint8Array.from({ length: map.blockCount }, (_, block) => {
    const isWritten = map.stateOf(block) === residency.written;
    return (map.hasCrossed(block) ? 1 << planes.crossed : 0) | (isWritten ? 1 << planes.written : 0);
  });
}
