import { Buffer } from "node:buffer";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  DifferenceError,
  DlsmError,
  FailedError,
  InterruptedError,
  LockedError,
  PreconditionError,
  UsageError,
} from "../../src/lib/errors.ts";
import { memoryPair } from "../../src/rpc/local.ts";
import {
  type Handlers,
  localPair,
  RemoteError,
  RpcClient,
  RpcClosedError,
  RpcTimeoutError,
  serve,
} from "../../src/rpc/mod.ts";
import { rejection } from "../helpers/rejection.ts";

/** Resolves when the signal is aborted, with its reason. */
function aborted(signal: AbortSignal): Promise<unknown> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(signal.reason);
    signal.addEventListener("abort", () => resolve(signal.reason));
  });
}

const echo: Handlers = { echo: (params) => Promise.resolve(params) };

const test = suite("rpc: client and server");

test("call() brings params there and the result back", async () => {
  const client = await localPair(echo);
  const params = { text: "ä", list: [1, null, true], deep: { size: 2 ** 53 - 1 }, big: 2n ** 63n };
  assert.equal(await client.call("echo", params), params);
  const bytes = await client.call("echo", new Uint8Array([1, 2, 3])) as Uint8Array;
  assert.is(Buffer.compare(bytes, new Uint8Array([1, 2, 3])), 0);
  assert.is(await client.call("echo"), null);
  client.close();
  await client.closed;
});

test("call() runs many at once and keeps their answers apart", async () => {
  const client = await localPair({
    later: (params) => new Promise((resolve) => setImmediate(() => resolve((params as number) * 2))),
  });
  const answers = await Promise.all(Array.from({ length: 500 }, (_, index) => client.call("later", index)));
  assert.equal(answers, Array.from({ length: 500 }, (_, index) => index * 2));
  client.close();
});

test("call() keeps class, message, hint and exit code of the DlsmError family", async () => {
  class SpecialError extends LockedError {}
  const errors: DlsmError[] = [
    new FailedError("a", { hint: "A" }),
    new UsageError("b"),
    new PreconditionError("c", { hint: "C" }),
    new InterruptedError("d"),
    new DifferenceError("e"),
    new LockedError("f"),
  ];
  const client = await localPair({
    fail: (params) => Promise.reject(errors[params as number]),
    special: () => Promise.reject(new SpecialError("g", { hint: "G" })),
  });
  for (const [index, sent] of errors.entries()) {
    const error = await rejection(client.call("fail", index), DlsmError);
    assert.is(error.constructor, sent.constructor);
    assert.equal([error.message, error.hint, error.exitCode], [sent.message, sent.hint, sent.exitCode]);
  }
  const special = await rejection(client.call("special"), LockedError);
  assert.equal([special.constructor, special.message, special.hint], [LockedError, "g", "G"]);
  client.close();
});

test("call() gives any other error as a RemoteError with its message and remote stack", async () => {
  const client = await localPair({
    bug: () => Promise.reject(new RangeError("oops")),
    thrown: () => {
      throw new Error("synchronous");
    },
    odd: () => Promise.reject("only text"),
    unsendable: () => Promise.resolve({ at: new Date() }),
  });
  const bug = await rejection(client.call("bug"), RemoteError);
  assert.is(bug.message, "oops");
  assert.ok(bug instanceof FailedError);
  assert.match(String(bug.cause), "rpc.test.ts");
  assert.is((await rejection(client.call("thrown"), RemoteError)).message, "synchronous");
  assert.is((await rejection(client.call("odd"), RemoteError)).message, "only text");
  assert.match((await rejection(client.call("unsendable"), RemoteError)).message, /"unsendable".*a tag/);
  client.close();
});

test("call() of an unknown method, or of one that every object has, is a PreconditionError", async () => {
  const client = await localPair({});
  for (const method of ["nope", "toString", "__proto__", "constructor"]) {
    const error = await rejection(client.call(method), PreconditionError);
    assert.match(error.hint ?? "", "same version");
  }
  client.close();
});

test("call() refuses params that are not plain data, and goes on", async () => {
  const client = await localPair(echo);
  const circle: Record<string, unknown> = {};
  circle.self = circle;
  for (const params of [() => 1, new Map(), new Date(), Symbol("s"), circle, { nested: [new Set()] }]) {
    await rejection(client.call("echo", params), TypeError);
  }
  assert.is(await client.call("echo", 7), 7);
  client.close();
});

test("onProgress sees the values in order, before the result", async () => {
  const client = await localPair({
    count: async (_, { progress }) => {
      for (let value = 0; value < 50; value++) {
        progress(value);
        if (value % 7 === 0) await null;
      }
      return "end";
    },
  });
  const seen: unknown[] = [];
  const end = await client.call("count", null, { onProgress: (value) => seen.push(value) });
  seen.push(end);
  assert.equal(seen, [...Array.from({ length: 50 }, (_, index) => index), "end"]);
  client.close();
});

test("onProgress that throws makes the call fail and cancels it", async () => {
  const told = Promise.withResolvers<unknown>();
  const client = await localPair({
    work: async (_, { progress, signal }) => {
      progress(1);
      told.resolve(await aborted(signal));
    },
  });
  const onProgress = () => {
    throw new Error("mine");
  };
  assert.is((await rejection(client.call("work", null, { onProgress }), Error)).message, "mine");
  await told.promise;
  client.close();
});

test("signal cancels: the call rejects with its reason and the handler's signal is aborted", async () => {
  const started = Promise.withResolvers<void>();
  const told = Promise.withResolvers<unknown>();
  const client = await localPair({
    work: async (_, { signal }) => {
      started.resolve();
      told.resolve(await aborted(signal));
      throw signal.reason;
    },
    ...echo,
  });
  const controller = new AbortController();
  const call = rejection(client.call("work", null, { signal: controller.signal }), Error);
  await started.promise;
  controller.abort(new Error("enough"));
  assert.is((await call).message, "enough");
  await told.promise;
  assert.is(await client.call("echo", 1), 1);
  const late = client.call("echo", 1, { signal: controller.signal });
  assert.is((await rejection(late, Error)).message, "enough");
  client.close();
});

test("timeoutMs is told to the handler and ends the call on both sides", async () => {
  const told = Promise.withResolvers<unknown>();
  const client = await localPair({
    work: async (_, { signal }) => told.resolve(await aborted(signal)),
    ...echo,
  });
  const error = await rejection(client.call("work", null, { timeoutMs: 20 }), RpcTimeoutError);
  assert.match(error.message, '"work"');
  assert.ok((await told.promise) instanceof Error);
  assert.is(await client.call("echo", 2, { timeoutMs: 1e12 }), 2);
  client.close();
});

test("a call that is given up keeps its place until the server is done with it", async () => {
  const release = Promise.withResolvers<void>();
  const running: unknown[] = [];
  const client = await localPair({
    stubborn: async (params) => {
      running.push(params);
      await release.promise;
    },
    ...echo,
  }, { maxCalls: 2 });
  const controller = new AbortController();
  const { signal } = controller;
  const given = [1, 2, 3].map((index) => rejection(client.call("stubborn", index, { signal }), Error));
  const next = client.call("echo", "after");
  controller.abort(new Error("enough"));
  await Promise.all(given);
  assert.equal(running, [1, 2]);
  release.resolve();
  assert.is(await next, "after");
  // The third was still in the queue when it was given up, and never crossed.
  assert.equal(running, [1, 2]);
  client.close();
});

test("the queue of calls is bounded", async () => {
  const release = Promise.withResolvers<void>();
  const client = await localPair({ wait: () => release.promise }, { maxCalls: 1, maxQueuedCalls: 2 });
  const calls = [1, 2, 3].map(() => client.call("wait"));
  await rejection(client.call("wait"), FailedError);
  release.resolve();
  await Promise.all(calls);
  client.close();
});

test("close() of the client ends open calls here and aborts their handlers there", async () => {
  const told = Promise.withResolvers<unknown>();
  const started = Promise.withResolvers<void>();
  const client = await localPair({
    work: async (_, { signal }) => {
      started.resolve();
      told.resolve(await aborted(signal));
    },
  });
  const call = rejection(client.call("work"), RpcClosedError);
  await started.promise;
  client.close();
  await call;
  await client.closed;
  assert.instance(await told.promise, RpcClosedError);
  await rejection(client.call("work"), RpcClosedError);
});

test("close() of the server still hands over the answers that were given", async () => {
  const [here, there] = memoryPair();
  const served = serve(there, { last: () => Promise.resolve("words") });
  const client = await RpcClient.connect(here);
  const answer = client.call("last");
  assert.is(await answer, "words");
  const open = rejection(client.call("none"), PreconditionError);
  await open;
  served.close();
  await served.closed;
  await client.closed;
});

test.run();
