/** What a hand-off that fails gives back: the fences that it made, unless a volume may have been activated. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { FailedError, PreconditionError, UnreachableError } from "../../src/lib/errors.ts";
import type { Context } from "../../src/migration/context.ts";
import { handOff } from "../../src/migration/hand-off.ts";
import { viewOf } from "../../src/migration/view.ts";
import type { DestinationEntry, Host } from "../../src/role/mod.ts";
import { destination, source } from "./entries.ts";

const test = suite("hand-off");

/** What was asked, when `destination.activate` fails like this and the destination is then as `entry` says. */
async function askedAfter(error: Error, entry: Partial<DestinationEntry>) {
  const asked: string[] = [];
  const answers: Record<string, () => unknown> = {
    "source.fence": () => ({ kinds: [], notes: [], users: [], stood: false }),
    "destination.activate": () => Promise.reject(error),
    "destination.list": () => [{ ...destination, isActivated: false, ...entry }],
    "source.unfence": () => null,
  };
  const ask = (name: string) => {
    asked.push(name);
    return Promise.resolve().then(answers[name]);
  };
  const host = { reach: null, ask } as unknown as Host;
  const warnings: string[] = [];
  const reporter = { message: (_level: string, text: string) => void warnings.push(text) };
  const context = { source: host, destination: host, reporter } as unknown as Context;
  const view = viewOf("abcd1234", [source], [{ ...destination, isActivated: false }]);
  await handOff(context, view, false).then(() => assert.unreachable(), (found) => assert.is(found, error));
  return { asked, warnings };
}

test("refused: the fence is taken back", async () => {
  const { asked } = await askedAfter(new PreconditionError("no"), {});
  assert.equal(asked.slice(-2), ["destination.list", "source.unfence"]);
});

test("the answer was lost: nobody knows, and the fence stays", async () => {
  const { asked } = await askedAfter(new UnreachableError("gone", { host: "b", wasReached: true }), {});
  assert.is(asked.at(-1), "destination.activate");
});

test("a volume is active all the same: the fence stays", async () => {
  const { asked } = await askedAfter(new PreconditionError("no"), { isActivated: true });
  assert.is(asked.at(-1), "destination.list");
});

test("the engine hangs, and may do what it was asked when it goes on: the fence stays, and that is told", async () => {
  const hung = { isEngineHung: true, engine: null, problem: "the engine does not answer" };
  const { asked, warnings } = await askedAfter(new FailedError("the engine does not answer"), hung);
  assert.is(asked.at(-1), "destination.list");
  assert.match(warnings.join(), "may still be read-only: the engine does not answer");
});

test.run();
