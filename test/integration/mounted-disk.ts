/**
 * A disk as a file system of the kernel's: a loop device over an image, or over a file that nbdfuse makes of a
 * volume's NBD socket, with ext4 on it. What is synced there comes to the engine as NBD flushes. Needs root.
 *
 * nbdfuse does not reconnect: when the engine dies, every access to the file system fails, and for who uses it
 * that is a crash of the machine. It can be mounted anew.
 */
import { closeSync, mkdirSync, openSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { execa, type Subprocess } from "execa";
import type { Test } from "uvu";
import { kill } from "../helpers/dlsm.ts";
import { attachLoop, type LoopDevice, needingLoop } from "../helpers/loop-device.ts";
import { readIfThere, until } from "../helpers/until.ts";
import { skipMarker } from "../helpers/verdict.ts";
import { NbdClient } from "./nbd-client.ts";

/** Programs that it needs. */
export const mountingPrograms = ["nbdfuse", "losetup", "mount", "umount", "mkfs.ext4", "e2fsck"];

/** As `needing` (needs.ts): skipped aloud where there are no loop devices or no FUSE. */
export async function needingMounts<T>(test: Test<T>, gate: Test<T>["skip"]): Promise<Test<T>["skip"]> {
  const loop = await needingLoop(test, gate);
  if (loop !== gate) return loop;
  try {
    closeSync(openSync("/dev/fuse", "r+"));
    return gate;
  } catch (error) {
    return (name, body) => {
      console.log(`${skipMarker}${name}: no FUSE can be had here (${(error as Error).message})`);
      test.skip(name, body);
    };
  }
}

export class MountedDisk {
  /** Where the file system is mounted; open to other users. */
  readonly path: string;
  readonly #file: string;
  readonly #loop: LoopDevice;
  readonly #fuse: FuseFile | undefined;
  #isMounted = false;

  private constructor(path: string, file: string, loop: LoopDevice, fuse: FuseFile | undefined) {
    this.path = path;
    this.#file = realpathSync(file);
    this.#loop = loop;
    this.#fuse = fuse;
  }

  /** Of an image; `folder` is for its mount point. */
  static async ofImage(image: string, folder: string): Promise<MountedDisk> {
    return await MountedDisk.#mounted(folder, image, undefined);
  }

  /** Of a volume, once its engine answers. */
  static async ofVolume(socket: string, folder: string): Promise<MountedDisk> {
    const fuse = await FuseFile.open(socket, folder);
    return await MountedDisk.#mounted(folder, fuse.path, fuse);
  }

  /** Mounting replays the journal; then the file system must have no error. */
  static async #mounted(folder: string, file: string, fuse: FuseFile | undefined): Promise<MountedDisk> {
    const path = join(folder, "mounted");
    mkdirSync(path, { recursive: true });
    let disk: MountedDisk | undefined;
    try {
      const loop = await attachLoop(file);
      disk = new MountedDisk(path, file, loop, fuse);
      await disk.#mount();
      await disk.#unmount();
      await run("e2fsck", "-f", "-n", loop.path);
      await disk.#mount();
      return disk;
    } catch (error) {
      await (disk ?? { detach: () => fuse?.close() }).detach();
      throw error;
    }
  }

  /** A crash of the machine for who uses it: from now on every access to the volume fails. */
  pullOut(): void {
    this.#fuse?.kill();
  }

  /** Takes it all away, whatever state it is in; nobody may use it any more. */
  async detach(): Promise<void> {
    await this.#unmount();
    await this.#loop.detach();
    // The kernel lets go of the file a little later.
    const backing = `/sys/block/${this.#loop.path.slice("/dev/".length)}/loop/backing_file`;
    await until(() => readIfThere(backing).trim() !== this.#file, `${this.#loop.path} is free`);
    await this.#fuse?.close();
  }

  async #mount(): Promise<void> {
    await run("mount", "-t", "ext4", this.#loop.path, this.path);
    this.#isMounted = true;
  }

  async #unmount(): Promise<void> {
    if (!this.#isMounted) return;
    await run("umount", this.path);
    this.#isMounted = false;
  }
}

/** A file that is a volume, by nbdfuse. */
class FuseFile {
  readonly path: string;
  readonly #process: Subprocess;

  private constructor(path: string, process: Subprocess) {
    this.path = path;
    this.#process = process;
  }

  static async open(socket: string, folder: string): Promise<FuseFile> {
    await answers(socket);
    const [path, pidFile] = [join(folder, "volume"), join(folder, "nbdfuse.pid")];
    rmSync(pidFile, { force: true });
    writeFileSync(path, "");
    const argv = ["--pidfile", pidFile, path, `nbd+unix:///?socket=${socket}`];
    const file = new FuseFile(path, execa("nbdfuse", argv, { reject: false, stdin: "ignore" }));
    await until(() => file.#hasEnded || readIfThere(pidFile) !== "", "nbdfuse is ready");
    if (file.#hasEnded) throw new Error(`nbdfuse: ${(await file.#process).stderr}`);
    return file;
  }

  get #hasEnded(): boolean {
    const { exitCode, signalCode } = this.#process.nodeChildProcess;
    return exitCode !== null || signalCode !== null;
  }

  kill(): void {
    kill(this.#process.pid!, "SIGKILL");
  }

  async close(): Promise<void> {
    await run("umount", this.path);
    await this.#process;
  }
}

/** Waits until somebody listens: an engine that was killed leaves its socket. */
async function answers(socket: string): Promise<void> {
  const deadline = performance.now() + 60_000;
  for (;;) {
    try {
      (await NbdClient.connect(socket)).close();
      return;
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await sleep(20);
    }
  }
}

async function run(program: string, ...args: string[]): Promise<void> {
  await execa(program, args, { timeout: 60_000 });
}
