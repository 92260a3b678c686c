/**
 * What QEMU does with the volume of a machine: its block layer as the client, which reconnects when the engine is
 * gone and sends again what was not answered. Whoever uses it sees a pause and nothing else.
 */
import { existsSync } from "node:fs";
import { execa } from "execa";
import { until, within } from "../helpers/processes.ts";

/** Longer than any engine of a test is away. */
const reconnectSeconds = 120;

/** Serves the volume behind `socket` once more, at `ownSocket`; killed at the end of `body`. */
export async function throughQemu<T>(
  socket: string,
  ownSocket: string,
  body: (uri: string) => Promise<T>,
): Promise<T> {
  const image = [
    "driver=nbd",
    "server.type=unix",
    `server.path=${socket}`,
    `reconnect-delay=${reconnectSeconds}`,
  ].join(",");
  const args = ["--socket", ownSocket, "--persistent", "--shared=8", "--discard=unmap"];
  const child = execa("qemu-nbd", [...args, "--image-opts", image], { reject: false, stdin: "ignore" });
  try {
    await Promise.race([
      until(() => existsSync(ownSocket), "qemu-nbd listens"),
      child.then(({ stderr }) => {
        throw new Error(`qemu-nbd ended: ${stderr}`);
      }),
    ]);
    return await body(`nbd+unix:///?socket=${ownSocket}`);
  } finally {
    child.kill("SIGKILL");
    await within(child, "qemu-nbd ends");
  }
}
