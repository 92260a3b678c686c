/** While a disk moves between two hosts nobody else sees its secrets: not in /proc, in no log, in no file. */
import { lstatSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { sourceJournal } from "../../src/role/source-journal.ts";
import type { TestHost } from "../helpers/hosts/mod.ts";
import { findProgram, needing } from "../helpers/needs.ts";
import { within } from "../helpers/processes.ts";
import { Move, programsOfTwoHosts } from "./two-hosts.ts";

const test = suite("two-hosts-secrets");
const withHosts = needing(test, programsOfTwoHosts, { root: true });

/** What others can see of a host, collected until the end. */
class Watcher {
  readonly #hosts: readonly TestHost[];
  readonly seen = new Set<string>();
  /** What others may get at, of all that dlsm made. */
  readonly open = new Set<string>();
  #isOver = false;
  readonly #watching: Promise<void>;

  constructor(hosts: readonly TestHost[]) {
    this.#hosts = hosts;
    for (const host of hosts) this.#wrap(host);
    this.#watching = this.#watch();
  }

  /** Programs that may live too short to be looked at tell what they are given. */
  #wrap(host: TestHost): void {
    for (const name of ["tgtd", "tgtadm", "ssh", "blkid", "nsenter", "mount", "umount", "ip", "unshare"]) {
      const program = findProgram(name);
      if (program === undefined) continue;
      const tell = `{ echo "$0 $*"; cat /proc/$$/environ; } >>'${host.path("told")}'`;
      writeFileSync(join(host.folder, "bin", name), `#!/bin/sh\n${tell}\nexec ${program} "$@"\n`, {
        mode: 0o755,
      });
    }
  }

  async #watch(): Promise<void> {
    while (!this.#isOver) {
      for (const host of this.#hosts) {
        for (const { pid } of host.processes()) {
          for (const what of ["cmdline", "environ"]) this.#look(pid, what);
        }
        for (const folder of ["state", "run"]) this.#files(host.path(folder));
      }
      await sleep(2);
    }
  }

  #look(pid: number, what: string): void {
    try {
      this.seen.add(readFileSync(`/proc/${pid}/${what}`, "latin1"));
    } catch {
      // It ended meanwhile.
    }
  }

  #files(folder: string): void {
    try {
      for (const name of ["", ...readdirSync(folder, { recursive: true, encoding: "utf8" })]) {
        const path = join(folder, name);
        // A folder that is closed to others is enough for what a program makes in it.
        const parts = name.split("/").map((_, at, all) => join(folder, ...all.slice(0, at + 1)));
        if ([folder, ...parts].every(isOpen)) this.open.add(path);
        if (/\.log$/.test(name)) this.seen.add(readFileSync(path, "latin1"));
      }
    } catch {
      // It went away while it was looked at.
    }
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#watching;
    for (const host of this.#hosts) this.seen.add(readFileSync(host.path("told"), "latin1"));
  }
}

function isOpen(path: string): boolean {
  const stats = lstatSync(path);
  return !stats.isSymbolicLink() && (stats.mode & 0o077) !== 0;
}

/** As they are, and as they may be written. */
function spellings(secret: string): string[] {
  const bytes = Buffer.from(secret);
  return [
    secret,
    bytes.toString("hex"),
    bytes.toString("base64").replace(/=+$/, ""),
    bytes.toString("base64url"),
  ];
}

for (const options of [[], ["--tunnel"]]) {
  withHosts(`no secret is to be seen on any host while a disk moves ${options.join(" ")}`, async () => {
    await Move.with(["node1", "node2", "node3"], {}, async (move) => {
      const { from, net } = move;
      const watcher = new Watcher(net.hosts);
      const command = move.start(net.host("node3"), "--handoff", "manual", "--bwlimit", "8MiB/s", ...options);
      const id = await move.idOn(from, "source");
      await move.until(id, (status) => status?.phase === "attached", "attached");
      const { chap } = sourceJournal(join(from.env.DLSM_STATE_DIR!, "source", id)).read()!.export;
      await move.to.ok("activate", id);
      const { exitCode, stdout, stderr } = await within(command.ended, "the end");
      assert.is(exitCode, 0, stderr);
      await watcher.stop();
      assert.ok([...watcher.seen].some((text) => text.includes("tgtadm")), "it watches");
      assert.ok([...watcher.seen].some((text) => text.includes("DLSM_STATE_DIR")), "it watches environments");
      const all = [...watcher.seen, stdout, stderr].join("\n");
      for (const secret of [chap.incoming.secret, chap.outgoing.secret]) {
        assert.ok(secret.length >= 12, "a real secret");
        for (const text of spellings(secret)) assert.not.ok(all.includes(text), "a secret is to be seen");
      }
      assert.equal([...watcher.open], [], "what others may read or write");
      assert.is(lstatSync(move.destination).mode & 0o077, 0, "the disk that was made");
      await from.run("rm", ["-f", from.path("told")]);
      move.checkDestination();
      await move.nothingLeft();
    });
  });
}

test.run();
