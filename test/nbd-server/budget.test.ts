import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type Budget, ServerBudget } from "../../src/nbd-server/budget.ts";

const test = suite("ServerBudget");

const mebibyte = 1024 * 1024;
/** A reserve of 2 MiB each, 128 MiB in common. */
const limits = {
  totalBytes: 256 * mebibyte,
  maxConnections: 64,
  maxBytes: 64 * mebibyte,
  maxRequests: 100_000,
};

/** Takes as much as it gets, in pieces. */
function greed(budget: Budget, pieceBytes = mebibyte / 2): void {
  while (budget.tryAcquire(pieceBytes));
}

test("a single client gets a half of the common part beside its reserve, and no more than its own limit", () => {
  const alone = new ServerBudget({ ...limits, maxBytes: 1024 * mebibyte }).join()!;
  greed(alone);
  assert.is(alone.bytes, 66 * mebibyte);
  const limited = new ServerBudget({ ...limits, maxBytes: 16 * mebibyte }).join()!;
  greed(limited);
  assert.is(limited.bytes, 16 * mebibyte);
});

test("63 greedy clients leave the last one its reserve, and something of the common part", () => {
  const server = new ServerBudget(limits);
  const greedy = Array.from({ length: 63 }, () => server.join()!);
  for (const budget of greedy) greed(budget, 4096);
  const last = server.join()!;
  greed(last, 4096);
  assert.ok(last.bytes >= 2 * mebibyte, String(last.bytes));
  assert.ok(server.committedBytes <= limits.totalBytes);
  assert.is(server.join(), undefined, "there is no 65th place");
});

test("half of it is free when half of the places are, and half of the bytes", () => {
  const server = new ServerBudget(limits);
  const all = Array.from({ length: 33 }, () => server.join()!);
  assert.not(server.isHalfFree, "33 places of 64 are taken");
  all.pop()!.leave(0, 0);
  assert.ok(server.isHalfFree);
  // What they leave in the device counts when they are gone as well.
  for (const budget of all) greed(budget);
  assert.not(server.isHalfFree);
  for (const budget of all) budget.leave(budget.requests, budget.bytes);
  assert.not(server.isHalfFree, "no place is taken");
  for (const budget of all) budget.release(budget.requests, budget.bytes);
  assert.ok(server.isHalfFree);
});

test("those who take in turns end with equal shares", () => {
  const server = new ServerBudget(limits);
  const [first, second, third] = [server.join()!, server.join()!, server.join()!];
  for (let round = 0; round < 1000; round++) {
    for (const budget of [first, second, third]) budget.tryAcquire(mebibyte / 2);
  }
  for (const { bytes } of [first, second, third]) {
    assert.ok(Math.abs(bytes - 34 * mebibyte) <= mebibyte, `${bytes}`);
  }
});

test("the number of requests is bounded however small they are", () => {
  const budget = new ServerBudget({ ...limits, maxRequests: 128 }).join()!;
  greed(budget, 1);
  assert.is(budget.requests, 128);
  budget.release(1, 1);
  assert.ok(budget.tryAcquire(1));
});

test("what a client leaves in the device counts until it is settled, and bounds who may come", () => {
  const server = new ServerBudget({ ...limits, totalBytes: 8 * mebibyte, maxConnections: 2 });
  const left: Budget[] = [];
  for (;;) {
    const budget = server.join();
    if (budget === undefined) break;
    assert.ok(budget.tryAcquire(2 * mebibyte));
    budget.leave(1, 2 * mebibyte);
    left.push(budget);
  }
  assert.is(left.length, 4);
  assert.is(server.committedBytes, 8 * mebibyte);
  left[0].release(1, 2 * mebibyte);
  assert.ok(server.join(), "its memory is free again");
});

interface Model {
  readonly budget: Budget;
  isMember: boolean;
  readonly held: number[];
}

test("whatever comes: never beyond the total, the reserve is always there, all of it comes back", () => {
  const step = fc.record({
    what: fc.constantFrom("join", "acquire", "acquire", "acquire", "release", "leave"),
    who: fc.nat(),
    bytes: fc.integer({ min: 1, max: 40 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const server = new ServerBudget({ totalBytes: 128, maxConnections: 4, maxBytes: 50, maxRequests: 5 });
      const clients: Model[] = [];
      for (const { what, who, bytes } of steps) {
        if (what === "join") {
          const budget = server.join();
          if (budget !== undefined) clients.push({ budget, isMember: true, held: [] });
        } else if (clients.length > 0) {
          act(clients[who % clients.length], what, bytes);
        }
        assert.ok(server.committedBytes <= 128, `${server.committedBytes}`);
      }
      for (const client of clients) {
        for (const bytes of client.held.splice(0)) client.budget.release(1, bytes);
        if (client.isMember) client.budget.leave(0, 0);
      }
      assert.is(server.committedBytes, 0);
    }),
    { numRuns: 500 },
  );

  function act(client: Model, what: string, bytes: number): void {
    const { budget, held } = client;
    if (what === "acquire" && client.isMember) {
      const total = budget.bytes + bytes;
      const mustFit = held.length < 5 && total <= 16;
      const mustNot = held.length >= 5 || total > 50;
      const fits = budget.tryAcquire(bytes);
      if (fits) held.push(bytes);
      assert.is(fits, mustFit || (fits && !mustNot));
    } else if (what === "release" && held.length > 0) {
      budget.release(1, held.shift()!);
    } else if (what === "leave" && client.isMember) {
      client.isMember = false;
      held.splice(Math.ceil(held.length / 2));
      budget.leave(held.length, held.reduce((sum, each) => sum + each, 0));
    }
    assert.is(budget.bytes, held.reduce((sum, each) => sum + each, 0));
  }
});

test.run();
