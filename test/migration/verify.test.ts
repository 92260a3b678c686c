/** What a verification notes at the destination: "same" is of the whole disk, so only when all of it is here. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Context } from "../../src/migration/context.ts";
import { verify } from "../../src/migration/verify.ts";
import { createReporter } from "../../src/report/mod.ts";
import type { Host } from "../../src/role/mod.ts";
import { destination, engine } from "./entries.ts";

const test = suite("verify()");

interface Case {
  readonly state: "active" | "synced";
  /** What the source has of each piece, as the destination's hash or another one. */
  readonly isSame: readonly boolean[];
}

/** One piece of two extents in each answer. */
const piecesOf = ({ isSame }: Case) =>
  isSame.map((_, at) => ({ extents: [[at * 1000, 100 + at], [at * 1000 + 500, 10]], sha256: hashOf(at) }));
const hashOf = (value: number) => new Uint8Array(32).fill(value);

/** Verifies it on a host with both roles: what is said, and what is noted. */
async function verified(given: Case) {
  const pieces = piecesOf(given);
  const noted: unknown[] = [];
  const answers: Record<string, (request: never) => unknown> = {
    "destination.list": () => [{ ...destination, engine: { ...engine, state: given.state } }],
    "destination.hashFetched": ({ from }: { from: number }) => ({
      pieces: pieces.slice(from, from + 1),
      next: from + 1 < pieces.length ? from + 1 : null,
    }),
    "source.hash": (request: { pieces: [number, number][][] }) =>
      request.pieces.map(([[offset]]) => {
        const at = offset! / 1000;
        return hashOf(given.isSame[at] ? at : 0xff);
      }),
    "destination.setVerified": (request) => void noted.push(request),
  };
  const ask = (name: string, request: unknown) => Promise.resolve(answers[name]!(request as never));
  const host = { reach: null, ask, facts: ask, close: () => Promise.resolve() } as unknown as Host;
  const context: Context = {
    source: host,
    destination: host,
    reporter: createReporter(true),
    signal: new AbortController().signal,
  };
  return { said: await verify(context, "abcd1234"), noted };
}

test("the same so far: nothing is noted before everything is here", async () => {
  const { said, noted } = await verified({ state: "active", isSame: [true] });
  assert.equal(said, { comparedBytes: 110, different: [] });
  assert.equal(noted, []);
});

test("the same when everything is here: that is noted, and how much was compared", async () => {
  const { said, noted } = await verified({ state: "synced", isSame: [true, true] });
  assert.equal(said, { comparedBytes: 221, different: [] });
  assert.equal(noted, [{ id: "abcd1234", verified: "same", verifiedBytes: 221 }]);
});

test("a difference is noted whenever it is found", async () => {
  for (const state of ["active", "synced"] as const) {
    const { said, noted } = await verified({ state, isSame: [true, false] });
    assert.equal(said, { comparedBytes: 221, different: [[1000, 101], [1500, 10]] });
    assert.equal(noted, [{ id: "abcd1234", verified: "different", verifiedBytes: 221 }]);
  }
});

test.run();
