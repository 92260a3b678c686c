/**
 * Killed, or cut off, in the middle of the hand-off, of the release and of the cut-over: each is held there, by the
 * host's lock or by a tgtd that is stopped, until it is.
 */
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { acquire } from "../../src/lib/lock.ts";
import { sourceJournal, type SourceRecord } from "../../src/role/source-journal.ts";
import { kill } from "../helpers/dlsm.ts";
import type { TestHost } from "../helpers/hosts/mod.ts";
import { needing } from "../helpers/needs.ts";
import { within } from "../helpers/processes.ts";
import { readIfThere } from "../helpers/until.ts";
import { killOn, Move, pidsOn, programsOfTwoHosts } from "./two-hosts.ts";

const test = suite("two-hosts-middle");
const withHosts = needing(test, programsOfTwoHosts, { root: true });
const names = ["node1", "node2", "node3"] as const;

const scenes = new Map<string, () => Promise<void>>();
let running: Map<string, Promise<void>> | undefined;

/** Most of it is waiting: all scenes run at the same time, each on a network of its own. */
function scene(what: string, body: (move: Move, controller: TestHost) => Promise<void>): void {
  scenes.set(what, () => Move.with(names, {}, (move) => body(move, move.net.host("node3"))));
  withHosts(what, async () => {
    running ??= new Map([...scenes].map(([name, run]) => [name, run()]));
    // What fails is told in its turn.
    for (const one of running.values()) one.catch(() => {});
    await running.get(what);
  });
}

function sourceRecord({ from }: Move, id: string): SourceRecord | undefined {
  return sourceJournal(join(from.env.DLSM_STATE_DIR!, "source", id)).read();
}

/** When nobody is at work there. */
async function lockOf(host: TestHost): Promise<{ release(): void }> {
  let lock: { release(): void } | undefined;
  await host.wait(() => (lock = acquire(host.env.DLSM_RUN_DIR!)) !== undefined, "nobody is at work there");
  return lock!;
}

/** `activate`, held when the source is fenced and the volume is about to be activated. */
async function heldHandOff(move: Move, controller: TestHost) {
  const { id } = await move.detached(move.from, "--handoff", "manual");
  const lock = await lockOf(move.to);
  const command = controller.start("dlsm", ["activate", id, "--host", "root@node2", "--host", "root@node1"]);
  await move.from.wait(() => sourceRecord(move, id)?.fence?.baseline != null, "the source is fenced");
  await waitsForLock(move.to);
  return { id, lock, command };
}

/** Who waits for the lock tries again all the time; a role that is not asked for anything sleeps. */
async function waitsForLock(host: TestHost): Promise<void> {
  const before = new Map<number, number>();
  const tries = (pid: number) => {
    const count = Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(readIfThere(`/proc/${pid}/status`))?.[1]);
    before.set(pid, before.get(pid) ?? count);
    return count - before.get(pid)!;
  };
  await host.wait(() => pidsOn(host, "role").some((pid) => tries(pid) > 50), "the role waits for the lock");
}

scene(
  "hand-off: the link is cut without a word, the volume is activated, the answer is lost",
  async (move, controller) => {
    const { id, lock, command } = await heldHandOff(move, controller);
    await move.net.cut(controller, "drop");
    lock.release();
    await move.until(id, (status) => status === undefined || status.phase !== "attached", "handed over");
    await command.kill();
    await move.net.restore(controller);
    await move.finished(id);
  },
);

scene(
  "hand-off: the command is killed before the volume is activated: then it is not, and abort undoes the fence",
  async (move, controller) => {
    const { id, lock, command } = await heldHandOff(move, controller);
    const roles = pidsOn(move.to, "role");
    await command.kill();
    // It has not waited for the lock.
    await move.to.wait(() => !pidsOn(move.to, "role").some((pid) => roles.includes(pid)), "its role ends");
    lock.release();
    assert.is((await move.to.status(id))[0]?.phase, "attached");
    await move.to.ok("abort", id);
    await move.takenBack();
  },
);

scene(
  "hand-off: the destination's role is killed: the command does not know, and activate does it again",
  async (move, controller) => {
    const { id, lock, command } = await heldHandOff(move, controller);
    await killOn(move.to, "role");
    lock.release();
    const { exitCode, stderr } = await within(command.ended, "the command ends", 60_000);
    assert.is(exitCode, 1, stderr);
    assert.is.not(sourceRecord(move, id)?.fence, null, "nobody knows: the source stays fenced");
    await move.from.ok("activate", id);
    await move.write(id, [3]);
    await move.finished(id);
  },
);

scene(
  "release: the source's role and tgtd are killed while it ends: it is asked again, to the end",
  async (move) => {
    const { id } = await move.detached(move.from, "--keep-source");
    await move.until(id, (status) => status?.phase === "synced", "synced");
    const [tgtd] = pidsOn(move.from, "tgtd");
    kill(tgtd!, "SIGSTOP");
    const command = move.to.start("dlsm", ["cutover", id]);
    await move.from.wait(() => sourceRecord(move, id)?.state === "releasing", "it is being released");
    await killOn(move.from, "role");
    await killOn(move.from, "tgtd");
    await move.finished(id, 120_000);
    await within(command.ended, "the command ends", 60_000);
  },
);

scene(
  "cut-over: driver and engine are killed while the first one waits for its turn: resume finishes it",
  async (move) => {
    const { id } = await move.detached(move.from, "--hold-cutover");
    await move.until(id, (status) => status?.phase === "released", "released");
    const lock = await lockOf(move.to);
    const command = move.to.start("dlsm", ["cutover", id]);
    await killOn(move.to, "driver");
    await killOn(move.to, "engine");
    await command.kill();
    lock.release();
    await move.to.ok("resume", id, "--detach");
    await move.to.ok("cutover", id);
    await move.finished(id);
  },
);

test.run();
