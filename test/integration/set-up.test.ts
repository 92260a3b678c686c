/** `migrate` killed at any moment between its start and the hand-off: resume goes on, abort takes all away. */
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../engine/memory.ts";
import { makeDisk } from "../helpers/disk.ts";
import { Dlsm, kill } from "../helpers/dlsm.ts";
import { findProgram, needing } from "../helpers/needs.ts";
import { pidsOf } from "../helpers/processes.ts";

const test = suite("set-up");
const withTgt = needing(test, ["tgtd"]);
/** A moment of the set-up: as soon as it is so, or within the n-th call of a program of tgt. */
interface Moment {
  readonly name: string;
  readonly isNow?: (dlsm: Dlsm) => boolean;
  readonly inCall?: { readonly program: "tgtd" | "tgtadm"; readonly number: number };
}

/** Paths in the one migration's folders, whatever its id is. */
function has(role: "source" | "destination", name: string): (dlsm: Dlsm) => boolean {
  return ({ environment }) => {
    const folder = join(environment.DLSM_STATE_DIR, role);
    return existsSync(folder) &&
      readdirSync(folder).some((id) => !id.startsWith(".") && existsSync(join(folder, id, name)));
  };
}

function serves(name: string): (dlsm: Dlsm) => boolean {
  return ({ environment: { DLSM_RUN_DIR: run } }) =>
    existsSync(run) && readdirSync(run).some((id) => existsSync(join(run, id, "dst", name)));
}

const moments: Moment[] = [
  { name: "it is planned", isNow: has("destination", "journal") },
  { name: "the export is planned", isNow: has("source", "journal") },
  { name: "tgtd is started", inCall: { program: "tgtd", number: 1 } },
  ...[1, 4, 7, 10].map((number): Moment => ({
    name: `tgtd is told something, call ${number}`,
    inCall: { program: "tgtadm", number },
  })),
  { name: "the local disk is made", isNow: (dlsm) => existsSync(dlsm.path("dst.img")) },
  { name: "the engine is told what to serve", isNow: has("destination", "engine.config") },
  { name: "the engine is started, slowly", isNow: holdEngine },
  { name: "the map is made", isNow: has("destination", "residency.map") },
  { name: "the volume is served", isNow: serves("nbd.sock") },
  { name: "the engine can be asked", isNow: serves("control.sock") },
];

/** An engine that has not come so far as to serve, and will not for a while. */
function holdEngine(dlsm: Dlsm): boolean {
  const engines = pidsOf(dlsm, "engine");
  for (const pid of engines) kill(pid, "SIGSTOP");
  return engines.length > 0;
}

/** Starts `migrate` and kills it at that moment. */
async function killAt({ isNow, inCall }: Moment, args: readonly string[], dlsm: Dlsm): Promise<void> {
  const bin = dlsm.path("bin");
  mkdirSync(bin);
  if (inCall !== undefined) killInCall(dlsm, bin, inCall.program, inCall.number);
  dlsm.environment.PATH = `${bin}:${process.env.PATH}`;
  const command = dlsm.start("migrate", ...args, "--detach");
  writeFileSync(dlsm.path("pid"), `${command.pid}\n`);
  let isOver = false;
  const over = command.then(() => isOver = true);
  while (!isOver && isNow?.(dlsm) !== true) await new Promise<void>((resolve) => setImmediate(resolve));
  kill(command.pid!, "SIGKILL");
  await over;
  delete dlsm.environment.PATH;
}

/** A stand-in for the program that kills the command before the n-th time it is what it stands for. */
function killInCall(dlsm: Dlsm, bin: string, program: string, number: number): void {
  const script = `#!/bin/sh
cd ${dlsm.folder}
echo >> calls
if [ $(wc -l < calls) = ${number} ]; then
  until [ -s pid ]; do :; done
  kill -9 $(cat pid)
fi
cd "$OLDPWD"
exec ${findProgram(program)} "$@"
`;
  writeFileSync(join(bin, program), script);
  chmodSync(join(bin, program), 0o755);
}

const seed = Number(process.env.DLSM_SEED ?? 1 + Math.floor(Math.random() * 1e6));
const random = new Random(seed);
/** Those with a child that does not serve yet always; of the others some, as the seed says (all: DLSM_ALL=1). */
const isAlways = ({ name }: Moment) => /is started/.test(name);

for (const moment of moments) {
  const both = ["abort", "resume"] as const;
  const all = process.env.DLSM_ALL === "1";
  if (!all && !isAlways(moment) && random.chance(0.5)) continue;
  const chosen = all ? both : isAlways(moment) ? both.slice(0, 1) : [both[random.below(2)]];
  for (const then of chosen) {
    withTgt(`when ${moment.name}: ${then} (seed ${seed})`, () => killedAndThen(moment, then));
  }
}

async function killedAndThen(moment: Moment, then: "abort" | "resume"): Promise<void> {
  const dlsm = new Dlsm();
  try {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeDisk(source, 16, [0, 1, 2, 7]);
    const before = readFileSync(source);
    await killAt(moment, [source, destination, "--handoff", "manual"], dlsm);
    const { stdout } = await dlsm.ok("status", "--json");
    const { id, phase, lastError } = JSON.parse(stdout);
    assert.is(phase, "exported");
    assert.match(lastError, /cut short/);
    if (then === "abort") {
      await dlsm.ok("abort", id);
      assert.not.ok(existsSync(destination));
    } else {
      const resumed = await dlsm.ok("resume", id, "--detach", "--json");
      assert.is(JSON.parse(resumed.stdout).phase, "attached");
      await dlsm.ok("activate", id);
      await dlsm.until(id, (status) => status === undefined, "done");
      assert.ok(readFileSync(destination).equals(before));
    }
    assert.ok(readFileSync(source).equals(before));
    await dlsm.nothingLeft();
  } finally {
    await dlsm.close();
  }
}

withTgt("abort of what was only planned leaves a file alone that somebody filled since", async () => {
  const dlsm = new Dlsm();
  try {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeDisk(source, 8, [0]);
    writeFileSync(destination, "");
    await killAt(moments[0], [source, destination], dlsm);
    writeFileSync(destination, "somebody's");
    const { id } = JSON.parse((await dlsm.ok("status", "--json")).stdout);
    await dlsm.ok("abort", id);
    assert.is(readFileSync(destination, "utf8"), "somebody's");
    await dlsm.nothingLeft();
  } finally {
    await dlsm.close();
  }
});

test.run();
