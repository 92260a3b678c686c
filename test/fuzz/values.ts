/** Plain values of any shape, and records with something wrong inside. */
import fc from "fast-check";

/** What CBOR carries here: null, booleans, numbers, bigints, strings, bytes, arrays, maps. */
export const plainValue: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
  leaf: fc.oneof(
    fc.constantFrom(null, true, false, undefined),
    fc.integer(),
    fc.maxSafeInteger(),
    fc.double(),
    fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n - 1n }),
    fc.bigInt({ min: -(2n ** 63n), max: -(2n ** 53n) - 1n }),
    fc.string({ unit: "grapheme", maxLength: 40 }),
    fc.uint8Array({ maxLength: 40 }),
  ),
  node: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    tie("leaf"),
    fc.array(tie("node"), { maxLength: 6 }),
    // It is refused on either side.
    fc.dictionary(fc.string({ maxLength: 12 }).filter((key) => key !== "__proto__"), tie("node"), {
      maxKeys: 5,
      noNullPrototype: true,
    }),
  ),
})).node;

/** One thing done to a record; places are taken modulo what there is. */
export type Reshaping =
  | { readonly kind: "put"; readonly at: number; readonly value: unknown }
  | { readonly kind: "delete"; readonly at: number }
  | { readonly kind: "copy"; readonly at: number; readonly from: number }
  | { readonly kind: "nudge"; readonly at: number; readonly by: number };

const odd = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    "",
    "x",
    "..",
    "/",
    "-oProxyCommand=x",
    "abcd1234",
    0,
    -1,
    1.5,
    2 ** 53,
    true,
  ),
  fc.constantFrom<unknown>(Infinity, -Infinity, NaN, 1e308, "\0", "a".repeat(5000), [], {}, "2024-01-01"),
  fc.constantFrom<unknown>(new Uint8Array(3), 2n ** 60n, false, 512, 4096, 65536, "\u001b[2J", "127.0.0.1"),
  plainValue,
);

const place = fc.nat(1000);

export const reshapings: fc.Arbitrary<Reshaping[]> = fc.oneof(
  { weight: 1, arbitrary: fc.constant<Reshaping[]>([]) },
  {
    weight: 3,
    arbitrary: fc.array(
      fc.oneof(
        fc.record({ kind: fc.constant("put" as const), at: place, value: odd }),
        fc.record({ kind: fc.constant("delete" as const), at: place }),
        fc.record({ kind: fc.constant("copy" as const), at: place, from: place }),
        fc.record({ kind: fc.constant("nudge" as const), at: place, by: fc.constantFrom(-1, 1, 0.5, 1e9) }),
      ),
      { minLength: 1, maxLength: 3 },
    ),
  },
);

type Slot = { readonly holder: Record<string, unknown> | unknown[]; readonly key: string | number };

function slotsOf(value: unknown, found: Slot[] = []): Slot[] {
  if (Array.isArray(value)) {
    value.forEach((each, key) => {
      found.push({ holder: value, key });
      slotsOf(each, found);
    });
  } else if (typeof value === "object" && value !== null && !(value instanceof Uint8Array)) {
    for (const [key, each] of Object.entries(value)) {
      found.push({ holder: value as Record<string, unknown>, key });
      slotsOf(each, found);
    }
  }
  return found;
}

/** A copy of the record in which these things are changed. */
export function reshaped(record: unknown, changes: readonly Reshaping[]): unknown {
  const root = { record: structuredClone(record) };
  for (const change of changes) {
    const slots = slotsOf(root);
    if (slots.length === 0) break;
    const { holder, key } = slots[change.at % slots.length]!;
    const object = holder as Record<string | number, unknown>;
    if (change.kind === "delete") {
      Array.isArray(holder) ? holder.splice(key as number, 1) : delete object[key];
    } else if (change.kind === "put") object[key] = structuredClone(change.value);
    else if (change.kind === "nudge") {
      if (typeof object[key] === "number") object[key] += change.by;
    } else {
      const source = slots[change.from % slots.length]!;
      object[key] = structuredClone((source.holder as Record<string | number, unknown>)[source.key]);
    }
  }
  return root.record;
}
