/** Another process that writes a disk, or could. */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { execa } from "execa";
import { until } from "./until.ts";

/** A process that has the file open for writing. */
export async function startWriter(
  path: string,
): Promise<{ pid: number; command: string; stop(): Promise<void> }> {
  const child = execa("sh", ["-c", 'exec 3<>"$0"; echo open; exec sleep 300 >/dev/null', path], {
    reject: false,
    stdin: "ignore",
  });
  await once(child.stdout!, "data");
  await until(
    () => readFileSync(`/proc/${child.pid}/comm`, "utf8") === "sleep\n",
    "the shell became the writer",
  );
  return {
    pid: child.pid!,
    command: "sleep 300",
    async stop() {
      child.kill("SIGKILL");
      await child;
    },
  };
}
