/** Who listens where: tgtds of dlsm, and a tgt service of the system that anybody may reach. */
import { basename, dirname } from "node:path";
import type { RoleFolders } from "../layout.ts";
import { type Finding, note, ok } from "./finding.ts";
import { isInside, processesBeside, socketsOf, tcpSockets } from "./processes.ts";
import { isEverywhere, type TcpSocket } from "./tcp-table.ts";

/** IANA's for iSCSI targets. */
const iscsiPort = 3260;

export function portFindings(folders: RoleFolders): Finding[] {
  return [...ownPorts(folders), ...systemPort(tcpSockets())];
}

function ownPorts(folders: RoleFolders): Finding[] {
  const daemons = processesBeside(folders).filter(({ name, cwd }) =>
    name === "tgtd" && isInside(cwd, folders.run)
  );
  return daemons.flatMap(({ id, cwd }) => {
    const diskId = basename(dirname(dirname(cwd)));
    return (socketsOf(id.pid) ?? []).filter(({ state }) => state === "listening").map((socket) =>
      ok("ports", diskId, `tgtd (pid ${id.pid}) of ${diskId} listens on ${textOf(socket)}`)
    );
  });
}

/** dlsm's own never listen on every address. */
export function systemPort(sockets: readonly TcpSocket[]): Finding[] {
  const open = sockets.filter((socket) =>
    socket.state === "listening" && socket.port === iscsiPort && isEverywhere(socket)
  );
  if (open.length === 0) return [];
  return [note(
    "ports",
    `port ${iscsiPort}`,
    `something listens on every address at port ${iscsiPort} (${open.map(textOf).join(", ")}): ` +
      "it is none of dlsm's, and may be the system's own tgt service",
    "if you need no iSCSI target of your own: systemctl disable --now tgt",
  )];
}

function textOf({ address, port }: TcpSocket): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
