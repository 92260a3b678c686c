/** Processes of dlsm that belong to this state and run folder, told by /proc. */
import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { sep } from "node:path";
import { identify, isRunning, type ProcessId } from "../../lib/process-id.ts";
import type { RoleFolders } from "../layout.ts";
import { parseTcpTable, type TcpSocket } from "./tcp-table.ts";

export interface OwnProcess {
  readonly id: ProcessId;
  /** The program's short name, as the kernel has it. */
  readonly name: string;
  readonly words: readonly string[];
  /** Its working folder, also if that was removed. */
  readonly cwd: string;
}

const deletedMark = " (deleted)";

/**
 * Every process of this user that sees the same run folder at the same path: one in a container or another
 * mount namespace may name the same paths and mean others. Zombies do not count.
 */
export function processesBeside({ run }: RoleFolders): OwnProcess[] {
  const uid = process.getuid?.();
  const here = statSync(run);
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name) && name !== `${process.pid}`).flatMap(
    (name) => {
      try {
        if (statSync(`/proc/${name}`).uid !== uid) return [];
        const there = statSync(`/proc/${name}/root${run}`);
        if (there.dev !== here.dev || there.ino !== here.ino) return [];
        const cwd = readlinkSync(`/proc/${name}/cwd`);
        const id = identify(Number(name));
        if (id === undefined || !isRunning(id)) return [];
        return [{
          id,
          name: readFileSync(`/proc/${name}/comm`, "utf8").trim(),
          words: readFileSync(`/proc/${name}/cmdline`, "utf8").split("\0"),
          cwd: cwd.endsWith(deletedMark) ? cwd.slice(0, -deletedMark.length) : cwd,
        }];
      } catch {
        return []; // Gone, or another user's.
      }
    },
  );
}

/** Undefined: the process is gone. */
export function parentOf(pid: number): number | undefined {
  const text = readOr(`/proc/${pid}/stat`, "");
  return text === "" ? undefined : Number(text.slice(text.lastIndexOf(")") + 2).split(" ")[1]);
}

/** TCP sockets that the process has open; undefined if that cannot be told. */
export function socketsOf(pid: number): TcpSocket[] | undefined {
  try {
    const inodes = new Set(
      readdirSync(`/proc/${pid}/fd`).flatMap((descriptor) => {
        try {
          return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${descriptor}`))?.[1] ?? [];
        } catch {
          return []; // Closed meanwhile.
        }
      }),
    );
    return tcpSockets(`/proc/${pid}/net`).filter(({ inode }) => inodes.has(inode));
  } catch {
    return undefined;
  }
}

/** All TCP sockets of a network namespace, by the folder that shows them. */
export function tcpSockets(folder = "/proc/self/net"): TcpSocket[] {
  return [
    ...parseTcpTable(readFileSync(`${folder}/tcp`, "utf8")),
    // There is none where the kernel has no IPv6.
    ...parseTcpTable(readOr(`${folder}/tcp6`, "")),
  ];
}

export function isInside(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder + sep);
}

function readOr(path: string, fallback: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return fallback;
  }
}
