/** Migrations whose terminal is closed, or that never had one: they keep going, and can be followed. */
import { existsSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { kill } from "../helpers/dlsm.ts";
import type { TestHost } from "../helpers/hosts/mod.ts";
import { needing } from "../helpers/needs.ts";
import { within } from "../helpers/processes.ts";
import { Move, pidsOn, programsOfTwoHosts } from "./two-hosts.ts";

const test = suite("two-hosts-detach");
const withHosts = needing(test, [...programsOfTwoHosts, "script", "setsid"], { root: true });
const names = ["node1", "node2", "node3"] as const;

/** Follows it from all hosts while it is slow, then lets it finish. */
async function isFollowed(move: Move, id: string): Promise<void> {
  await move.until(id, (status) => status?.phase === "active", "active");
  await move.to.wait(() => pidsOn(move.to, "driver").length === 1, "a driver in the background");
  const residentBytes = async (host: TestHost) => (await host.status(id))[0]!.disks[0]!.residentBytes;
  const first = await residentBytes(move.from);
  await move.until(id, (status) => (status?.disks[0].residentBytes ?? 0) > first, "it goes on");
  for (const host of [move.from, move.to]) assert.ok(await residentBytes(host) > first, host.name);
  await move.to.ok("limit", id, "off");
  await move.finished(id);
}

/** `dlsm migrate` in a terminal; the terminal's program is what runs. */
function inTerminal(move: Move, controller: TestHost, ...args: string[]) {
  const words = ["dlsm", "migrate", ...move.places(controller), "--bwlimit", "128KiB/s", ...args];
  return controller.start("script", ["-qec", words.join(" "), "/dev/null"], { stdin: "pipe" });
}

withHosts("a terminal that is closed after --detach: it keeps going", async () => {
  await Move.with(names, {}, async (move) => {
    const node3 = move.net.host("node3");
    const terminal = inTerminal(move, node3, "--detach");
    assert.is((await within(terminal.ended, "the command returns")).exitCode, 0, terminal.stdout);
    assert.equal(node3.processes(), [], "nothing of it is left there");
    await isFollowed(move, await move.idOn(move.to, "destination"));
  });
});

withHosts("a terminal that is closed under it: it goes on in the background", async () => {
  await Move.with(names, {}, async (move) => {
    const terminal = inTerminal(move, move.from);
    const id = await move.idOn(move.to, "destination");
    await move.until(id, (status) => status?.phase === "active", "active");
    kill(terminal.pid!, "SIGKILL");
    await move.from.wait(() => pidsOn(move.from, "command").length === 0, "the command ends", 60_000);
    terminal.stdin.destroy();
    await isFollowed(move, id);
  });
});

withHosts("from cron: no terminal, no home, nothing in the environment but a path", async () => {
  await Move.with(names, {}, async (move) => {
    const { from } = move;
    const { PATH, DLSM_STATE_DIR, DLSM_RUN_DIR } = from.env as Record<string, string>;
    const env = { PATH: PATH!, DLSM_STATE_DIR: DLSM_STATE_DIR!, DLSM_RUN_DIR: DLSM_RUN_DIR! };
    const words = ["dlsm", "migrate", ...move.places(from), "--bwlimit", "128KiB/s", "--detach"];
    const log = from.path("cron.log");
    const line = `exec setsid ${words.join(" ")} </dev/null >${log} 2>&1`;
    const ran = await from.run("sh", ["-c", line], { env, cwd: "/" });
    assert.is(ran.exitCode, 0, existsSync(log) ? (await from.run("cat", [log])).stdout : "no log");
    await isFollowed(move, await move.idOn(move.to, "destination"));
  });
});

test.run();
