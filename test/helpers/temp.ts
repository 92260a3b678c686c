/** Temporary folders of a test's own, removed when the process ends. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execaSync } from "execa";

const made: string[] = [];

/** A fresh folder, mode 0700, with a name short enough for unix sockets in it. */
export function tempFolder(label = "t"): string {
  const path = mkdtempSync(join(tmpdir(), `dlsm-${label}-`));
  made.push(path);
  return path;
}

process.on("exit", () => {
  for (const path of made) {
    try {
      rmSync(path, { recursive: true, force: true });
    } catch {
      // A fence that a test has left standing: its disk is immutable.
      execaSync("chattr", ["-R", "-i", path], { reject: false });
      rmSync(path, { recursive: true, force: true });
    }
  }
});
