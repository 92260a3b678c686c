/**
 * What can be seen of hosts from outside dlsm, collected all the time until it is asked for: command lines and
 * environments of all processes, the files that dlsm keeps, and their modes.
 */
import { lstatSync, readdirSync, readFileSync, type Stats, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { TestHost } from "../helpers/hosts/mod.ts";
import { findProgram } from "../helpers/needs.ts";

/** They may live too short to be looked at: they tell what they are given. */
const shortLived = [
  "tgtd",
  "tgtadm",
  "ssh",
  "blkid",
  "nsenter",
  "mount",
  "umount",
  "ip",
  "unshare",
  "chattr",
];
/** The lock of its management socket: empty, and as closed as the folder that it is in. */
const isTgtds = /\/tgt\/s\.\d+\.lock$/;
/** What is larger is a disk or a map. */
const maxFileBytes = 256 * 1024;

export class Watcher {
  readonly #hosts: readonly TestHost[];
  /** What was seen, by place. */
  readonly #seen = new Map<string, Set<string>>();
  readonly #sizes = new Map<string, string>();
  /** Paths that others can use, or that have another mode than they should, with it. */
  readonly open = new Set<string>();
  #isOver = false;
  readonly #watching: Promise<void>;

  constructor(hosts: readonly TestHost[]) {
    this.#hosts = hosts;
    for (const host of hosts) tellOf(host);
    this.#watching = this.#watch();
  }

  /** Where a text was seen: "node1 cmdline", "node1 environ", "node1 told", "node1 FILE". */
  find(text: string): string[] {
    return [...this.#seen].flatMap(([place, texts]) =>
      [...texts].some((seen) => seen.includes(text)) ? [place] : []
    );
  }

  textsAt(place: string): string[] {
    return [...this.#seen.get(place) ?? []];
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#watching;
    for (const host of this.#hosts) this.note(readFileSync(toldBy(host), "latin1"), `${host.name} told`);
  }

  /** As if it had been seen. */
  note(text: string, place: string): void {
    const texts = this.#seen.get(place) ?? new Set();
    this.#seen.set(place, texts.add(text));
  }

  async #watch(): Promise<void> {
    while (!this.#isOver) {
      for (const host of this.#hosts) {
        this.#processes(host);
        for (const folder of ["state", "run"]) this.#files(host, host.path(folder));
        this.#files(host, host.path("tmp"));
      }
      await sleep(1);
    }
  }

  #processes(host: TestHost): void {
    // The host's own /proc has nobody else's processes.
    const proc = `/proc/${host.space.pid}/root/proc`;
    for (const pid of readdirSync(proc).filter((name) => /^\d+$/.test(name))) {
      for (const what of ["cmdline", "environ"]) {
        try {
          this.note(readFileSync(join(proc, pid, what), "latin1"), `${host.name} ${what}`);
        } catch {
          // It ended meanwhile.
        }
      }
    }
  }

  #files(host: TestHost, folder: string): void {
    try {
      for (const name of ["", ...readdirSync(folder, { recursive: true, encoding: "utf8" })]) {
        const path = join(folder, name);
        const stats = lstatSync(path);
        const mode = stats.mode & 0o777;
        if (mode !== modeOf(stats) && !isTgtds.test(path)) this.open.add(`${path} ${mode.toString(8)}`);
        if (stats.isFile() && stats.size <= maxFileBytes) this.#read(host, path, stats);
      }
    } catch {
      // It went away while it was looked at, or is not there yet.
    }
  }

  #read(host: TestHost, path: string, { size, mtimeMs, ino }: Stats): void {
    const version = [size, mtimeMs, ino].join(" ");
    if (this.#sizes.get(path) === version) return;
    this.#sizes.set(path, version);
    this.note(readFileSync(path, "latin1"), `${host.name} ${path}`);
  }
}

/** Sockets are as closed as the folder that they are in. */
function modeOf(stats: Stats): number {
  if (stats.isDirectory()) return 0o700;
  return stats.isFile() ? 0o600 : stats.mode & 0o777;
}

const toldBy = (host: TestHost) => host.path("told");

function tellOf(host: TestHost): void {
  writeFileSync(toldBy(host), "");
  for (const name of shortLived) {
    const program = findProgram(name);
    if (program === undefined) continue;
    const tell = `{ echo "$0 $*"; cat /proc/$$/environ; } >>'${toldBy(host)}'`;
    writeFileSync(host.path(`bin/${name}`), `#!/bin/sh\n${tell}\nexec ${program} "$@"\n`, { mode: 0o755 });
  }
}
