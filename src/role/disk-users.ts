/**
 * Who can write a disk right now: processes that have it open for writing, and what the kernel does with it
 * (mounts, swap, device-mapper, md, loop devices on a file). Without root only this user's processes are seen.
 */
import {
  type BigIntStats,
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  statSync,
} from "node:fs";
import { deviceName, diskIdentity } from "./disk-identity.ts";
import type { DiskUser } from "./messages.ts";

/**
 * Identities of all that the disk is made of: itself, the disk that it is a partition of, the devices below
 * a device-mapper or md device, the file behind a loop device, and what those are made of in turn.
 */
export function standsOn(path: string): string[] {
  const found = new Set<string>();
  const visit = (stats: BigIntStats) => {
    const identity = diskIdentity(stats);
    if (found.has(identity)) return;
    found.add(identity);
    if (stats.isBlockDevice()) visitDevice(deviceName(stats.rdev));
  };
  const visitDevice = (device: string) => {
    found.add(`dev:${device}`);
    const folder = `/sys/dev/block/${device}`;
    const below = listed(`${folder}/slaves`).map((name) => `${folder}/slaves/${name}/dev`);
    if (existsSync(`${folder}/partition`)) below.push(`${realpathSync(folder)}/../dev`);
    for (const file of below) {
      const name = lines(file)[0];
      if (name !== undefined && !found.has(`dev:${name}`)) visitDevice(name);
    }
    const backing = lines(`${folder}/loop/backing_file`)[0];
    const stats = backing === undefined
      ? undefined
      : statSync(backing, { bigint: true, throwIfNoEntry: false });
    if (stats !== undefined) visit(stats);
  };
  visit(statSync(path, { bigint: true }));
  return [...found];
}

/** Everybody who can write the disk, `exceptPids` left out. */
export function diskUsers(path: string, exceptPids: readonly number[] = []): DiskUser[] {
  const stats = statSync(path, { bigint: true });
  const identity = diskIdentity(stats);
  const names = [identity, ...(stats.isBlockDevice() ? otherNames(deviceName(stats.rdev)) : [])];
  const users = processes(new Set(names), new Set([process.pid, ...exceptPids]));
  const devices = stats.isBlockDevice() ? [deviceName(stats.rdev)] : loopDevicesOn(path);
  if (!stats.isBlockDevice()) {
    for (const device of devices) {
      users.push({ kind: "holder", pid: null, name: blockName(device) ?? device });
    }
  }
  const family = withParts(devices);
  for (const device of family.all) {
    for (const holder of listed(`/sys/dev/block/${device}/holders`)) {
      users.push({ kind: "holder", pid: null, name: `/dev/${holder}` });
    }
  }
  users.push(...mountsOf(family.all), ...swapsOn(family.names));
  return users;
}

/**
 * Identities of what a device's bytes can be written through as well: its partitions, the disk that it is a
 * partition of, the file behind a loop device.
 */
function otherNames(device: string): string[] {
  const folder = `/sys/dev/block/${device}`;
  const names = withParts([device]).all.map((part) => `dev:${part}`);
  if (existsSync(`${folder}/partition`)) names.push(`dev:${lines(`${realpathSync(folder)}/../dev`)[0]}`);
  const backing = lines(`${folder}/loop/backing_file`)[0];
  const stats = backing === undefined
    ? undefined
    : statSync(backing, { bigint: true, throwIfNoEntry: false });
  if (stats !== undefined) names.push(diskIdentity(stats));
  return names;
}

/** `users` in words, for a message. */
export function describeUsers(users: readonly DiskUser[]): string {
  return users.map(({ kind, pid, name }) => {
    if (kind === "process") return `process ${pid} (${name})`;
    if (kind === "mount") return `a file system mounted on ${name}`;
    return kind === "swap" ? `swap (${name})` : `the device ${name} on top of it`;
  }).join(", ");
}

function processes(identities: ReadonlySet<string>, except: ReadonlySet<number>): DiskUser[] {
  const users: DiskUser[] = [];
  for (const entry of listed("/proc")) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || except.has(pid)) continue;
    const hasIt = listed(`/proc/${pid}/fd`).some((descriptor) => {
      try {
        const stats = statSync(`/proc/${pid}/fd/${descriptor}`, { bigint: true });
        if (!stats.isFile() && !stats.isBlockDevice()) return false;
        return identities.has(diskIdentity(stats)) && isForWriting(pid, descriptor);
      } catch {
        return false; // Closed meanwhile.
      }
    });
    if (hasIt) users.push({ kind: "process", pid, name: commandOf(pid) });
  }
  return users;
}

function isForWriting(pid: number, descriptor: string): boolean {
  const flags = /^flags:\s+([0-7]+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${descriptor}`, "utf8"));
  return flags !== null && (parseInt(flags[1], 8) & 3) !== 0;
}

function commandOf(pid: number): string {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").filter((word) => word !== "");
    const given = words.length > 0 ? words.join(" ") : readFileSync(`/proc/${pid}/comm`, "utf8");
    const text = given.trim().replaceAll(/\s+/g, " ");
    return text.length > 80 ? `${text.slice(0, 79)}…` : text;
  } catch {
    return "unknown";
  }
}

/** Loop devices whose backing file is this one. */
function loopDevicesOn(path: string): string[] {
  return listed("/sys/block").filter((name) => name.startsWith("loop")).flatMap((name) => {
    try {
      const backing = readFileSync(`/sys/block/${name}/loop/backing_file`, "utf8").replace(/\n$/, "");
      return backing === path ? [readFileSync(`/sys/block/${name}/dev`, "utf8").trim()] : [];
    } catch {
      return [];
    }
  });
}

/** The devices and their partitions: as "major:minor", and as names. */
function withParts(devices: readonly string[]): { all: string[]; names: string[] } {
  const all = [...devices];
  for (const device of devices) {
    for (const entry of listed(`/sys/dev/block/${device}`)) {
      try {
        all.push(
          readFileSync(`/sys/dev/block/${device}/${entry}/partition`, "utf8") &&
            readFileSync(`/sys/dev/block/${device}/${entry}/dev`, "utf8").trim(),
        );
      } catch {
        // No partition.
      }
    }
  }
  return { all, names: all.flatMap((device) => blockName(device) ?? []) };
}

function blockName(device: string): string | undefined {
  try {
    return `/dev/${readlinkSync(`/sys/dev/block/${device}`).split("/").at(-1)}`;
  } catch {
    return undefined;
  }
}

function mountsOf(devices: readonly string[]): DiskUser[] {
  const users: DiskUser[] = [];
  for (const line of lines("/proc/self/mountinfo")) {
    // "36 35 98:0 /root /mount/point options … - type source superoptions" (proc_pid_mountinfo(5)).
    const fields = line.split(" ");
    const superOptions = fields.at(-1)?.split(",") ?? [];
    if (!devices.includes(fields[2]) || superOptions.includes("ro")) continue;
    const point = fields[4].replaceAll(
      /\\([0-7]{3})/g,
      (_, octal) => String.fromCharCode(parseInt(octal, 8)),
    );
    users.push({ kind: "mount", pid: null, name: point });
  }
  return users;
}

function swapsOn(names: readonly string[]): DiskUser[] {
  return lines("/proc/swaps").slice(1).map((line) => line.split(/\s+/)[0])
    .filter((name) => names.includes(name))
    .map((name) => ({ kind: "swap", pid: null, name }));
}

function lines(path: string): string[] {
  try {
    return readFileSync(path, "utf8").split("\n").filter((line) => line !== "");
  } catch {
    return [];
  }
}

function listed(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
