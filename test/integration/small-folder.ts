/** A folder of a test that is a small file system of its own. Needs root and mount. */
import { appendFileSync, mkdirSync } from "node:fs";
import { execa } from "execa";
import * as assert from "uvu/assert";
import type { Dlsm } from "../helpers/dlsm.ts";
import { withDlsm } from "./refusal.ts";

export interface SmallFolder {
  readonly path: string;
  /** As mount(8) wants it: "64m". */
  resize(size: string): Promise<void>;
}

/** `small` in the test's folder is a file system of that size of its own. */
export async function withSmallFolder(
  size: string,
  body: (dlsm: Dlsm, small: SmallFolder) => Promise<void>,
): Promise<void> {
  let path: string | undefined;
  try {
    await withDlsm(async (dlsm) => {
      mkdirSync(dlsm.path("small"));
      await execa("mount", ["-t", "tmpfs", "-o", `size=${size},mode=700`, "none", dlsm.path("small")]);
      path = dlsm.path("small");
      const resize = async (wanted: string) => {
        await execa("mount", ["-o", `remount,size=${wanted}`, dlsm.path("small")]);
      };
      await body(dlsm, { path, resize });
    });
  } finally {
    // Nothing runs any more that has files open in it.
    if (path !== undefined) await execa("umount", [path]);
  }
}

/** Takes all space that is left. */
export function fillUp(path: string): void {
  assert.throws(() => {
    for (;;) appendFileSync(path, Buffer.alloc(4096));
  }, /no space left/i);
}
