/**
 * What tgtd opens for a disk: a name in its own folder, without odd characters, and read-only where that can
 * be had.
 *
 * tgtd opens a disk for reading and writing, and for reading only if that fails with EACCES or EROFS. So it
 * runs in a mount namespace of its own, in which its name for the disk does not allow writing:
 *
 * | disk            | namespace | name                                                                         |
 * |-----------------|-----------|------------------------------------------------------------------------------|
 * | file            | any       | "mount": bind mount of the file on an empty file, read-only (EROFS)          |
 * | block device    | root's    | "node": device node of mode 0400; tgtd lacks CAP_DAC_OVERRIDE (EACCES)       |
 * | block device    | a user's  | "link": symbolic link; a read-only mount would not keep from writing to it   |
 * | any             | none      | "link"                                                                       |
 *
 * The mounts are private to the namespace and go with its last process: nothing is to be undone after tgtd has
 * ended, however it ended. While tgtd runs, unlinking the name takes the mount on it away.
 */
import { execa } from "execa";
import { readFileSync, statSync } from "node:fs";
import { mkdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describePath, deviceNumbers, type Disk } from "./disk.ts";
import { TgtError } from "./errors.ts";
import { accessModes } from "./process.ts";
import { environment, findProgram } from "./programs.ts";

/** The mount namespace that tgtd runs in. */
export type Namespace = "root" | "user" | "none";

/** "mount" and "node" keep tgtd from writing, "link" does not. */
export type ViewKind = "mount" | "node" | "link";

/** How long mount(8) and the like may take: a network file system can hang. */
const timeoutMs = 20_000;

/** CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, CAP_MKNOD: what the root namespace cannot do without. */
const neededCapabilities = (1n << 2n) | (1n << 21n) | (1n << 27n);

/**
 * What to put before tgtd's argv. Mounts and unmounts of the host still reach the namespace (slave), so tgtd
 * keeps no file system of the host busy but the disk's own.
 */
function prefix(namespace: Namespace): string[] {
  const mounts = ["--mount", "--propagation", "slave"];
  if (namespace === "none") return [];
  if (namespace === "user") return ["unshare", "--user", "--map-root-user", ...mounts];
  // Root reads everything (CAP_DAC_READ_SEARCH), but writes only where the mode says so.
  return ["unshare", ...mounts, "setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override"];
}

/** The argv that runs `command` in the namespace; unshare and setpriv become it, so the pid stays. */
export function inNamespace(namespace: Namespace, command: readonly string[]): string[] {
  return [...prefix(namespace), ...command];
}

/** The best namespace that can be had here. */
export async function chooseNamespace(): Promise<Namespace> {
  const namespace = process.getuid?.() === 0 ? "root" : "user";
  if (namespace === "root" && !hasCapabilities(neededCapabilities)) return "none";
  if (["unshare", "nsenter", "mount"].some((name) => findProgram(name) === undefined)) return "none";
  const [program, ...argv] = inNamespace(namespace, ["true"]);
  const result = await execa(program!, argv, execOptions);
  return result.exitCode === 0 ? namespace : "none";
}

/** Whether tgtd can be kept here from opening files for writing. */
export async function canKeepReadOnly(): Promise<boolean> {
  return await chooseNamespace() !== "none";
}

function hasCapabilities(needed: bigint): boolean {
  try {
    const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    return (BigInt(`0x${effective ?? "0"}`) & needed) === needed;
  } catch {
    return false;
  }
}

const execOptions = {
  extendEnv: false,
  env: environment(),
  stdin: "ignore",
  timeout: timeoutMs,
  killSignal: "SIGKILL",
  reject: false,
} as const;

const disksName = "disks";
const nodesName = "nodes";

/** The daemon whose eyes the view is for. */
export interface Viewer {
  readonly pid: number;
  /** Its folder, without symbolic links. */
  readonly folder: string;
  readonly namespace: Namespace;
}

export interface View {
  readonly kind: ViewKind;
  /** Relative to the folder. */
  readonly path: string;
}

/** Makes the folders that views are in. */
export async function prepareViews(folder: string): Promise<void> {
  for (const name of [disksName, nodesName]) {
    await mkdir(join(folder, name), { recursive: true, mode: 0o700 });
  }
}

export async function removeViews(folder: string): Promise<void> {
  for (const name of [disksName, nodesName]) await rm(join(folder, name), { recursive: true, force: true });
}

/** The view of `disk` under the name `id`; whatever had that name is removed. Falls back to a link. */
export async function makeView(viewer: Viewer, id: number, disk: Disk): Promise<View> {
  await removeView(viewer, id);
  try {
    if (viewer.namespace !== "none" && disk.stats.isFile()) return await mountFile(viewer, id, disk);
    if (viewer.namespace === "root" && disk.stats.isBlockDevice()) return await makeNode(viewer, id, disk);
  } catch {
    // Not here, for whatever reason; the caller learns it from the kind.
    await removeView(viewer, id);
  }
  await symlink(disk.path, join(viewer.folder, disksName, String(id)));
  return { kind: "link", path: `${disksName}/${id}` };
}

export async function removeView(viewer: Viewer, id: number): Promise<void> {
  await rm(join(viewer.folder, disksName, String(id)), { force: true });
  if (viewer.namespace !== "root") return;
  // The nodes are on a file system that only the namespace has.
  await rm(seenBy(viewer, join(viewer.folder, nodesName, String(id))), { force: true }).catch(() => {});
}

async function mountFile(viewer: Viewer, id: number, disk: Disk): Promise<View> {
  const path = `${disksName}/${id}`;
  const mountPoint = join(viewer.folder, path);
  const source = `${mountPoint}.source`;
  await writeFile(mountPoint, "", { mode: 0o600, flag: "wx" });
  // The link spares mount(8) the odd characters of the disk's path.
  await symlink(disk.path, source);
  try {
    await runInside(viewer, ["mount", "--no-mtab", "--bind", source, mountPoint]);
  } finally {
    await rm(source, { force: true });
  }
  // In two steps: in one, mount(8) would take nosuid and the like away, which a user namespace may not.
  await runInside(viewer, ["mount", "--no-mtab", "-o", "remount,bind,ro", mountPoint]);
  return { kind: "mount", path };
}

async function makeNode(viewer: Viewer, id: number, disk: Disk): Promise<View> {
  const folder = join(viewer.folder, nodesName);
  if (statSync(folder).dev === statSync(seenBy(viewer, folder)).dev) {
    // The folder's own file system may be mounted nodev, as /run is.
    const options = ["-t", "tmpfs", "-o", "mode=0700,size=64k"];
    await runInside(viewer, ["mount", "--no-mtab", ...options, "tmpfs", folder]);
  }
  const { major, minor } = deviceNumbers(disk.stats.rdev);
  const numbers = [String(major), String(minor)];
  await runInside(viewer, ["mknod", "--mode=0400", join(folder, String(id)), "b", ...numbers]);
  return { kind: "node", path: `${nodesName}/${id}` };
}

/** Where this process sees what the viewer sees at `path`. */
function seenBy(viewer: Viewer, path: string): string {
  return `/proc/${viewer.pid}/root${path}`;
}

async function runInside(viewer: Viewer, command: readonly string[]): Promise<void> {
  const user = viewer.namespace === "user" ? ["--user", "--preserve-credentials"] : [];
  const argv = ["--target", String(viewer.pid), ...user, "--mount", ...command];
  const result = await execa("nsenter", argv, execOptions);
  if (result.exitCode === 0) return;
  throw new TgtError(
    "permission",
    `${command[0]} in tgtd's mount namespace: ${result.stderr || result.shortMessage}`,
  );
}

/**
 * Whether tgtd holds the disk for reading only, as the kernel says; undefined: the kernel does not tell.
 * Throws "badDisk" if tgtd holds another file than the one that was inspected.
 */
export function isOpenedReadOnly(viewer: Viewer, disk: Disk): boolean | undefined {
  let modes: number[];
  try {
    modes = accessModes(viewer.pid, disk.stats);
  } catch {
    return undefined;
  }
  if (modes.length === 0) {
    throw new TgtError("badDisk", `${describePath(disk.path)} was replaced while it was being exported`);
  }
  return modes.every((mode) => mode === 0);
}
