/** Loop devices for tests: block devices that are files. Needs root. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import type { Test } from "uvu";
import { makeDisk } from "./disk.ts";
import { findProgram, isRoot } from "./needs.ts";
import { tempFolder } from "./temp.ts";
import { skipMarker } from "./verdict.ts";

export interface LoopDevice {
  /** /dev/loopN */
  readonly path: string;
  /** Its data is in the file afterwards. Can be repeated. */
  detach(): Promise<void>;
}

export async function attachLoop(file: string, sectorBytes: 512 | 4096 = 512): Promise<LoopDevice> {
  const options = ["--find", "--show", "--sector-size", String(sectorBytes)];
  const { stdout } = await losetup([...options, file]);
  const path = stdout.trim();
  let isAttached = true;
  return {
    path,
    async detach() {
      if (!isAttached) return;
      await losetup(["--detach", path]);
      isAttached = false;
    },
  };
}

/** As `needing` (needs.ts), for tests with loop devices: skipped aloud where there can be none. */
export async function needingLoop<T>(test: Test<T>, gate: Test<T>["skip"]): Promise<Test<T>["skip"]> {
  const reason = isRoot ? await missingLoop() : "needs root, for loop devices";
  if (reason === undefined) return gate;
  return (name, body) => {
    console.log(`${skipMarker}${name}: ${reason}`);
    test.skip(name, body);
  };
}

async function missingLoop(): Promise<string | undefined> {
  if (findProgram("losetup") === undefined) return "needs losetup";
  const file = join(tempFolder("loop"), "probe");
  makeDisk(file, 1, []);
  try {
    await (await attachLoop(file)).detach();
    return undefined;
  } catch (error) {
    return `no loop device can be had here (${(error as Error).message.split("\n").at(-1)})`;
  } finally {
    rmSync(file);
  }
}

function losetup(args: readonly string[]) {
  return execa(findProgram("losetup")!, args, { timeout: 20_000 });
}
