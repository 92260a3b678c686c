/** A migration between two hosts goes on without whoever began it, and can be followed from everywhere. */
import { readFileSync, writeFileSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type MigrationStatus, phases } from "../../src/report/mod.ts";
import type { Ran } from "../helpers/dlsm.ts";
import type { TestHost } from "../helpers/hosts/mod.ts";
import { needing } from "../helpers/needs.ts";
import { within } from "../helpers/processes.ts";
import { readIfThere } from "../helpers/until.ts";
import { Terminal } from "./terminal.ts";
import { lastJson, looksLike, Move, pidsOn, programsOfTwoHosts } from "./two-hosts.ts";

const test = suite("two-hosts-detach");
const withHosts = needing(test, [...programsOfTwoHosts, "script"], { root: true });
const names = ["node1", "node2", "node3"] as const;

/** 16 MiB take some seconds: whoever began it is gone before the end. */
const slowly = ["--bwlimit", "4MiB/s"];
/** So long that there is time for other commands. */
const slower = ["--bwlimit", "1MiB/s"];

/** A command line for a shell. */
function line(move: Move, on: TestHost, ...options: string[]): string {
  return ["dlsm", "migrate", ...move.places(on), ...options].join(" ");
}

withHosts("--detach in a terminal that is closed right after", async () => {
  await Move.with(names, {}, async (move) => {
    // All of it runs on this host: the engine and what drives it, too.
    const { to } = move;
    const terminal = await Terminal.open(to);
    terminal.type(`${line(move, to, ...slowly, "--detach")}; echo ended $?`);
    await terminal.says(/ended 0/);
    const id = await move.idOn(to, "destination");
    // ssh's children end a moment after the command.
    const commands = () => terminal.processes().map(({ command }) => command);
    await to.wait(() => String(commands()) === "sh", "only the shell is left").catch(() => {});
    assert.equal(commands(), ["sh"]);
    await to.wait(() => pidsOn(to, "driver").length === 1 && pidsOn(to, "engine").length === 1, "they run");
    await terminal.close();
    await move.finished(id);
  });
});

withHosts("--detach in a terminal that was closed before", async () => {
  await Move.with(names, {}, async (move) => {
    const { from } = move;
    const terminal = await Terminal.open(from);
    const [go, ended] = [from.path("go"), from.path("ended")];
    const command = `${line(move, from, ...slowly, "--detach")}; echo $? >${ended}`;
    terminal.type(`(trap '' HUP; until [ -e ${go} ]; do sleep 0.1; done; ${command}) &`);
    terminal.type("echo begun $?");
    await terminal.says(/begun 0/);
    await terminal.close();
    writeFileSync(go, "");
    await from.wait(() => readIfThere(ended) !== "", "the command ends");
    assert.is(readFileSync(ended, "utf8"), "0\n");
    await move.finished(await move.idOn(move.to, "destination"));
  });
});

withHosts(
  "--detach from cron, with nobody who reads its output; three hosts follow it to its end",
  async () => {
    await Move.with(names, {}, async (move) => {
      const { net, to } = move;
      const controller = net.host("node3");
      const ended = controller.path("ended");
      const dlsm = `${controller.path("bin")}/${line(move, controller, ...slower, "--detach")}`;
      const command = `{ ${dlsm}; echo $? >${ended}; }`;
      const job = controller.start("sh", ["-c", `${command} 2>&1 | true`], { env: cronOf(controller) });
      await within(job.ended, "the job");
      assert.is(readFileSync(ended, "utf8"), "0\n");
      const id = await move.idOn(to, "destination");
      await to.ok("pause", id);
      const watch = to.start("sh", ["-c", "dlsm status --watch --json | true"]);
      await within(watch.ended, "dlsm status --watch ends when nobody reads it", 30_000);
      const seen = net.hosts.map((host) => follow(host, id));
      await to.wait(() => seen.every(({ statuses }) => statuses.length > 0), "all have seen it");
      assert.is((await to.status(id))[0]?.paused, true, "it is not at its end");
      await to.ok("limit", id, "4MiB/s");
      await to.ok("resume", id, "--detach");
      for (const [at, { statuses, ended }] of seen.entries()) {
        const { name } = net.hosts[at]!;
        const last = await ended;
        const order = statuses.map(({ phase }) => phases.indexOf(phase));
        assert.equal(
          order,
          order.toSorted((a, b) => a - b),
          `${name}: ${statuses.map(({ phase }) => phase)}`,
        );
        assert.ok(order.includes(phases.indexOf("active")), `${name} sees it at work`);
        const resident = statuses.map(({ disks }) => disks[0]!.residentBytes);
        assert.equal(resident, resident.toSorted((a, b) => a - b), `${name}: ${resident}`);
        // The source's host knows nothing of it any more; the two others ask the destination's.
        assert.is(last.exitCode, name === "node1" ? 3 : 0, `${name}: ${last.stderr}`);
        assert.is(order.at(-1) === phases.indexOf("done"), name !== "node1", name);
      }
      for (const host of net.hosts) assert.equal(await host.status(), [], host.name);
      await move.finished(id);
    });
  },
);

withHosts("Ctrl-C in the foreground: it goes on in the background, exit code 4", async () => {
  await Move.with(names, {}, async (move) => {
    const { net, to } = move;
    const controller = net.host("node3");
    const terminal = await Terminal.open(controller);
    terminal.type(`${line(move, controller, ...slowly)}; echo ended $?`);
    await terminal.says(/the disk can be used at/);
    const id = await move.idOn(to, "destination");
    terminal.pressCtrlC();
    await terminal.says(/ended 4/);
    await terminal.says(
      new RegExp(`interrupted; ${id} goes on in the background\\s+see how far it is with dlsm status`),
    );
    await to.wait(() => pidsOn(to, "driver").length === 1, "it is driven");
    await terminal.close();
    await move.finished(id);
  });
});

withHosts("the terminal of one in the foreground is closed: it goes on in the background", async () => {
  await Move.with(names, {}, async (move) => {
    const { from, to } = move;
    const terminal = await Terminal.open(from);
    terminal.type(line(move, from, ...slowly));
    await terminal.says(/the disk can be used at/);
    const commands = terminal.processes().map(({ command }) => command);
    assert.not.ok(commands.some((command) => looksLike.tgtd.test(command)), commands.join("\n"));
    await terminal.close();
    await from.wait(() => pidsOn(from, "command").length === 0, "the command ends");
    await move.finished(await move.idOn(to, "destination"));
  });
});

/** The surroundings of a job of cron; beside what every command of a test must have. */
function cronOf({ env }: TestHost): Record<string, string> {
  const { HOME, DLSM_STATE_DIR, DLSM_RUN_DIR, DENO_DIR, NODE_COMPILE_CACHE } = env as Record<string, string>;
  const tests = { DLSM_STATE_DIR, DLSM_RUN_DIR, DENO_DIR, ...(NODE_COMPILE_CACHE && { NODE_COMPILE_CACHE }) };
  return { HOME, LOGNAME: "root", SHELL: "/bin/sh", PATH: "/usr/bin:/bin", ...tests } as Record<
    string,
    string
  >;
}

/** What `dlsm status ID --json` says on a host, again and again until it is done or not known there. */
function follow(host: TestHost, id: string): { statuses: MigrationStatus[]; ended: Promise<Ran> } {
  const statuses: MigrationStatus[] = [];
  const deadline = performance.now() + 90_000;
  const ask = async () => {
    for (;;) {
      const last = await host.dlsm("status", id, "--json");
      const status = last.exitCode === 0 ? lastJson(last.stdout) : undefined;
      if (status !== undefined) statuses.push(status);
      if (status === undefined || status.phase === "done") return last;
      if (performance.now() > deadline) throw new Error(`${host.name}: no end: ${last.stdout}`);
    }
  };
  return { statuses, ended: ask() };
}

test.run();
