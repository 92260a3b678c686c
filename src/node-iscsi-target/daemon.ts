/** One private tgtd that runs. */
import { rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { socketName } from "./arguments.ts";
import { Control, logName } from "./control.ts";
import { exportDisk, type ExportedDisk, type ExportOptions } from "./export.ts";
import { hasEnded, isRunning, killProcess } from "./process.ts";
import { type DaemonState, stateName } from "./state-file.ts";
import { tearDown } from "./teardown.ts";
import type { Connection, LunStatistics, Portal, Target } from "./types.ts";
import { removeView, removeViews, type Viewer } from "./view.ts";

/** How long sessions may take to end, and tgtd after it was told to, before it is killed. */
const stopTimeoutMs = 3_000;

export class Daemon {
  /** Without symbolic links. */
  readonly folder: string;
  /** The calls of tgtadm, one by one. Prefer the methods here, which do them in the safe order. */
  readonly control: Control;
  readonly #state: DaemonState;
  readonly #viewer: Viewer;
  /** Changes wait for one another: target ids and names are looked up and then used. */
  #queue: Promise<unknown> = Promise.resolve();

  /** Use startDaemon or adoptDaemon. */
  constructor(folder: string, state: DaemonState, timeoutMs: number) {
    this.folder = folder;
    this.#state = state;
    this.control = new Control({ folder, tgtadm: state.tgtadm, timeoutMs });
    this.#viewer = { pid: state.pid, folder, namespace: state.namespace };
  }

  get pid(): number {
    return this.#state.pid;
  }

  /** False once tgtd has ended, whoever has its pid now. */
  isAlive(): boolean {
    return isRunning(this.#state);
  }

  portals(): Promise<Portal[]> {
    return this.control.portals();
  }

  targets(): Promise<Target[]> {
    return this.control.targets();
  }

  connections(tid: number): Promise<Connection[]> {
    return this.control.connections(tid);
  }

  /** One entry for each LUN and session; the counters of a session end with it. */
  statistics(tid: number): Promise<LunStatistics[]> {
    return this.control.statistics(tid);
  }

  /** Exports a disk read-only to one host; see export.ts. All or nothing. */
  exportDisk(options: ExportOptions): Promise<ExportedDisk> {
    return this.#inTurn(() => exportDisk(this.control, this.#viewer, options));
  }

  /**
   * Takes a target away in the safe order: no new logins, then its sessions end, then it goes, then its
   * accounts. Nothing happens if it is not there. A peer that takes no data holds it up until the pings go
   * unanswered (20 s by default). Throws TgtError "targetActive" if sessions do not end.
   */
  removeTarget(target: number | string): Promise<void> {
    return this.#inTurn(async () => {
      const found = (await this.targets()).find((each) => each.tid === target || each.name === target);
      if (found === undefined) return;
      await tearDown(this.control, found);
      await removeView(this.#viewer, found.tid);
    });
  }

  /** Takes all targets away, ends tgtd (by force, if it does not end) and removes its files. Can be repeated. */
  stop(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.isAlive()) {
        try {
          for (const target of await this.targets()) await tearDown(this.control, target, stopTimeoutMs);
          await this.control.shutDown();
          await hasEnded(this.#state, stopTimeoutMs);
        } catch {
          // It spins, or a session does not end: killing it is safe, since it only reads.
        }
      }
      await this.#endAndClean();
    });
  }

  /** Ends tgtd at once and removes its files. Peers see their connections close. Can be repeated. */
  kill(): Promise<void> {
    return this.#endAndClean();
  }

  async #endAndClean(): Promise<void> {
    await killProcess(this.#state);
    await removeFiles(this.folder);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work, work);
    this.#queue = result.catch(() => {});
    return result;
  }
}

/** Removes what a daemon leaves in its folder, and the folder if nothing else is in it. */
export async function removeFiles(folder: string): Promise<void> {
  await removeViews(folder);
  for (const name of [stateName, `${stateName}.new`, socketName, `${socketName}.lock`, logName]) {
    await rm(join(folder, name), { force: true });
  }
  await rmdir(folder).catch(() => {});
}
