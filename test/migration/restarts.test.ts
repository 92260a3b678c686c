import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Restarts } from "../../src/migration/restarts.ts";

const test = suite("restarts");

test("twenty within ten minutes are borne, no more", () => {
  const restarts = new Restarts();
  for (let count = 1; count <= 20; count++) assert.is(restarts.count(count * 1000), true);
  assert.is(restarts.count(21_000), false);
});

test("one an hour is borne for ever", () => {
  const restarts = new Restarts();
  for (let hour = 0; hour < 1000; hour++) assert.is(restarts.count(hour * 3_600_000), true, `hour ${hour}`);
});

test.run();
