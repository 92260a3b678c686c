import { readFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { version } from "../../src/lib/version.ts";

const test = suite("lib/version");

test("version is that of package.json", () => {
  const manifest = JSON.parse(readFileSync(join(import.meta.dirname!, "../../package.json"), "utf8"));
  assert.is(version, manifest.version);
  assert.match(version, /^\d+\.\d+\.\d+$/);
});

test.run();
