/** What hosts hold and run, to be compared with what it was. */
import { createHash } from "node:crypto";
import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import type { TestHost } from "../helpers/hosts/mod.ts";

/** What grows or changes while nothing is asked of dlsm; and that a host got an id. */
const livesItsOwnLife = /^etc\/sshd\.log$|\.log$|\/(driver|host-id)$/;

/** Notes everything on the hosts; the result throws if any of it is not as it was. `counts`: which processes do. */
export function noteAll(
  hosts: readonly TestHost[],
  counts: (command: string) => boolean = () => true,
): (what: string) => Promise<void> {
  const processesOf = (host: TestHost) =>
    host.processes().filter(({ command }) => counts(command)).map(({ pid, command }) => `${pid} ${command}`)
      .sort();
  const before = hosts.map(filesOf);
  const processes = hosts.map(processesOf);
  return async (what) => {
    await Promise.all(hosts.map(async (host, at) => {
      // ssh's children end a moment after the command.
      const deadline = performance.now() + 30_000;
      while (String(processesOf(host)) !== String(processes[at])) {
        if (performance.now() > deadline) break;
        await sleep(10);
      }
      assert.equal(processesOf(host), processes[at], `processes on ${host.name}: ${what}`);
    }));
    for (const [at, host] of hosts.entries()) {
      assert.equal(filesOf(host), before[at], `files on ${host.name}: ${what}`);
    }
  };
}

/** Of the host's folder and of /run, as the host sees them: names, kinds, modes, sizes, times, content. */
function filesOf(host: TestHost): Record<string, string> {
  const root = `/proc/${host.space.pid}/root`;
  const files: Record<string, string> = {};
  for (const folder of [host.folder, "/run"]) {
    for (const path of ["", ...readdirSync(root + folder, { recursive: true, encoding: "utf8" }).sort()]) {
      if (livesItsOwnLife.test(path)) continue;
      files[join(folder, path)] = describe(join(root + folder, path));
    }
  }
  return files;
}

function describe(path: string): string {
  const stats = lstatSync(path);
  const mode = stats.mode.toString(8);
  if (stats.isSymbolicLink()) return `${mode} ${readlinkSync(path)}`;
  if (!stats.isFile()) return mode;
  const hash = createHash("sha1").update(readFileSync(path)).digest("hex");
  return [mode, stats.size, stats.mtimeMs, stats.ino, hash].join(" ");
}
