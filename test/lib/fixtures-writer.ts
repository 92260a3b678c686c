/** Writes one journal again and again until it is killed. */
import process from "node:process";
import { Journal } from "../../src/lib/journal.ts";

const journal = new Journal<unknown>(process.argv[2], "migration", 3, (value) => value);
for (let count = 1;; count++) {
  journal.write({ id: `m${count}`, sizeBytes: count, list: [String(count % 10).repeat(10_000)] });
  if (count % 10 === 0) process.stdout.write(".");
  await new Promise((resolve) => setImmediate(resolve));
}
