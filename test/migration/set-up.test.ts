/** Who sets up is alone, but does not give way to one that only looks whether there is something to do. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { InterruptedError, LockedError } from "../../src/lib/errors.ts";
import { setUp } from "../../src/migration/start.ts";
import type { Context } from "../../src/migration/context.ts";
import { createReporter } from "../../src/report/mod.ts";
import type { Host } from "../../src/role/mod.ts";
import { destination, source } from "./entries.ts";

const test = suite("setUp()");

/** A host with both roles, where another process has the driver's place for the first `times` requests. */
function busyHost(times: number): Host {
  const answers: Record<string, () => unknown> = {
    "driver.take": () => times-- <= 0,
    "destination.list": () => [destination],
    "source.list": () => [source],
  };
  const ask = (name: string) => Promise.resolve(answers[name]!());
  return { reach: null, ask, facts: ask, close: () => Promise.resolve() } as unknown as Host;
}

function contextOf(host: Host, signal = new AbortController().signal): Context {
  return { source: host, destination: host, reporter: createReporter(true), signal };
}

test("it waits for a process that has the driver's place for a moment", async () => {
  const { id, disks } = await setUp(contextOf(busyHost(3)), "abcd1234");
  assert.equal([id, disks.length], ["abcd1234", 1]);
});

test("one that keeps the driver's place is told of in the end", async () => {
  await setUp(contextOf(busyHost(Infinity)), "abcd1234").then(
    () => assert.unreachable(),
    (error) => assert.instance(error, LockedError),
  );
});

test("interrupted, it does not wait", async () => {
  await setUp(contextOf(busyHost(Infinity), AbortSignal.abort()), "abcd1234").then(
    () => assert.unreachable(),
    (error) => assert.instance(error, InterruptedError),
  );
});

test.run();
