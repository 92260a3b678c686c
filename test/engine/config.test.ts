/** What an engine is told, as older and newer programs wrote it. */
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import * as v from "valibot";
import {
  type EngineConfig,
  engineConfigJournal,
  engineFiles,
  sourceExportSchema,
} from "../../src/engine/config.ts";
import { Journal } from "../../src/lib/journal.ts";
import { tempFolder } from "../helpers/temp.ts";

const test = suite("config");

/** As it was before there were tunnels. */
const source = {
  address: "192.0.2.7",
  port: 3260,
  targetName: "iqn.2026-01.local.dlsm:abcd1234.00ff",
  serial: "dlsm-abcd1234",
  chap: { incoming: { user: "in", secret: "one" }, outgoing: { user: "out", secret: "two" } },
  sizeBytes: 4096,
  blockBytes: 512,
  holesReadZero: true,
} as const;
const config = {
  volumeId: "abcd1234",
  path: "/disks/a",
  sizeBytes: 4096,
  blockBytes: 4096,
  activation: "explicit",
  isFresh: true,
  isSeeded: false,
  bytesPerSecond: null,
  isPaused: false,
  sourceTimeoutMs: null,
} as const;

test("engineConfigJournal: a file without a tunnel says that there is none; one with it keeps it", () => {
  const folder = tempFolder("config");
  const older = new Journal<unknown>(join(folder, engineFiles.config), "engine", 1, (value) => value);
  older.write({ ...config, source });
  const read = engineConfigJournal(folder).read();
  assert.equal(read, { ...config, source: { ...source, tunnel: null } });
  const newer: EngineConfig = { ...read!, source: { ...source, tunnel: "root@node1" } };
  engineConfigJournal(folder).write(newer);
  assert.equal(engineConfigJournal(folder).read(), newer);
});

test("sourceExportSchema: a tunnel names a host, and nothing that ssh or a shell would take for more", () => {
  const isGood = (tunnel: unknown) => v.is(sourceExportSchema, { ...source, tunnel });
  for (const good of [null, "node1", "root@node1", "u.v-w@node-1.example.org", "root@fe80::1%eth0"]) {
    assert.ok(isGood(good), `${good}`);
  }
  const bad = [
    "",
    "-oProxyCommand=x",
    "a b",
    "a\nb",
    "a;b",
    "a`b`",
    "$(a)",
    "a|b",
    "a'b",
    "x".repeat(256),
    7,
  ];
  for (const each of bad) assert.not.ok(isGood(each), `${each}`);
});

test.run();
