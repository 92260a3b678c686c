/** The models of engine and tgtd answer as the real ones do, through the same roles. */
import { Buffer } from "node:buffer";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { kill } from "../helpers/dlsm.ts";
import { locally } from "../helpers/local-migration.ts";
import { needing } from "../helpers/needs.ts";
import { until } from "../helpers/until.ts";
import { loadCode } from "./migration/bundle.ts";
import { type Ground, tellOf } from "./migration/contract.ts";
import { localHost } from "./migration/conversation.ts";
import { enter, World } from "./migration/world.ts";

const test = suite("models of engine and tgtd");
const withTgt = needing(test, ["tgtd"]);

async function simulated(): Promise<string[]> {
  const world = new World(1);
  world.code = await loadCode();
  enter(world);
  const host = world.host("a");
  const sizeBytes = 5 * 4096;
  host.files.put("/data/src.img", Buffer.alloc(sizeBytes, "source"));
  let lines: string[] | undefined;
  world.spawn(host, { kind: "command", args: ["contract"] }, async () => {
    const { ask } = await localHost({ state: world.code.stateFolder(), run: world.code.runFolder() });
    lines = await tellOf({
      ask,
      kill: (pid) => Promise.resolve(world.end(host.processes.get(pid)!, "killed")),
      pause: () => world.sleep(20),
      source: "/data/src.img",
      destination: "/data/dst.img",
      sizeBytes,
    });
  });
  const isOver = await world.run(() => lines !== undefined, 600_000);
  enter(undefined);
  assert.ok(isOver, world.trace.join("\n"));
  assert.equal(world.violations, []);
  return lines!;
}

async function real(): Promise<string[]> {
  let lines: string[] = [];
  await locally(async ({ dlsm, host }) => {
    const source = dlsm.path("src.img");
    makeDisk(source, 1, [0]);
    lines = await tellOf({
      ask: host.ask as Ground["ask"],
      kill: async (pid) => {
        kill(pid, "SIGKILL");
        await until(() => !isThere(pid), "it ends");
      },
      pause: () => new Promise((resolve) => setTimeout(resolve, 20)),
      source,
      destination: dlsm.path("dst.img"),
      sizeBytes: MiB,
    });
  });
  return lines;
}

function isThere(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

withTgt("a migration through all of its messages, with kills: both tell the same", async () => {
  const [model, truth] = [await simulated(), await real()];
  assert.ok(truth.length > 40, truth.join("\n"));
  assert.equal(model, truth);
  const last = truth.find((line) => line.startsWith("engine again, without a source"))!;
  assert.match(last, '"isSourceDetached":true', "it does not look for what was released");
});

test.run();
