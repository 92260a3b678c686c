/** Real daemons for the tests of this room; each is ended by the test that started it. */
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type Daemon,
  type ExportOptions,
  startDaemon,
  type StartOptions,
} from "../../src/node-iscsi-target/mod.ts";
import { chooseNamespace } from "../../src/node-iscsi-target/view.ts";
import { tempFolder } from "../helpers/temp.ts";

export const loopback = { address: "127.0.0.1", port: 0 };

/** Whether this machine lets tgtd have a mount namespace of its own. */
export const hasNamespace = await chooseNamespace() !== "none";

export async function withDaemon(
  use: (daemon: Daemon, folder: string) => Promise<void>,
  options: Partial<StartOptions> = {},
): Promise<void> {
  const folder = tempFolder("tgt");
  const daemon = await startDaemon({ folder: join(folder, "d"), portal: loopback, ...options });
  try {
    await use(daemon, folder);
  } finally {
    await daemon.kill();
  }
}

export const chap = { incoming: { user: "initiator", secret: "in-secret, with comma" } };
export const mutualChap = { ...chap, outgoing: { user: "target", secret: "out-secret-12345" } };

let exported = 0;

/** Options of an export with a name and an account of its own. */
export function exportOptions(path: ExportOptions["path"], more: Partial<ExportOptions> = {}): ExportOptions {
  const number = ++exported;
  return {
    path,
    targetName: `iqn.2024-01.test:disk${number}`,
    serial: `serial-${number}`,
    allow: "127.0.0.1",
    chap: { incoming: { user: `user${number}`, secret: chap.incoming.secret } },
    ...more,
  };
}

/** A sparse image whose first 4 KiB say `label` again and again. */
export function makeImage(
  folder: string,
  name: string | Buffer = "disk.img",
  label = "data",
  sizeBytes = 1 << 20,
) {
  const path = typeof name === "string"
    ? join(folder, name)
    : Buffer.concat([Buffer.from(`${folder}/`), name]);
  writeFileSync(path, Buffer.alloc(4096, label));
  truncateSync(path, sizeBytes);
  return path;
}

/** Polls until `condition` holds; throws after ten seconds. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error("it did not come to pass within ten seconds");
    await sleep(10);
  }
}
