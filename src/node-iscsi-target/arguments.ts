/** The argument vectors of tgtd and tgtadm. Pure. Arguments are checked in check.ts, not here. */
import type { AccountDirection, Portal } from "./types.ts";

/** The daemon's control number: any will do, since each daemon has a socket folder of its own. */
export const controlNumber = 1;

/** Value of TGT_IPC_SOCKET. Relative: daemon and tools run in the daemon's folder, whatever that is called. */
export const socketPrefix = "s";

/** Name of the control socket in the daemon's folder. */
export const socketName = `${socketPrefix}.${controlNumber}`;

/** `127.0.0.1:3260`, `[::1]:3260` */
export function portalText(portal: Portal): string {
  const address = portal.address.includes(":") ? `[${portal.address}]` : portal.address;
  return `${address}:${portal.port}`;
}

/**
 * tgtd always starts on a free loopback port: with a portal that it cannot bind it would go on and listen on
 * all addresses at port 3260 instead. The wanted portal is added later, when a failure is an error.
 */
export function daemonArguments(
  options: { ioThreads: number; nopIntervalSeconds: number; nopCount: number },
): string[] {
  const portal = portalText({ address: "127.0.0.1", port: 0 });
  const nop = `nop_interval=${options.nopIntervalSeconds},nop_count=${options.nopCount}`;
  return [
    ["-f", "-C", String(controlNumber), "-t", String(options.ioThreads)],
    ["--iscsi", `portal=${portal},${nop}`],
  ].flat();
}

function command(op: string, mode: string, ...rest: (string | number)[]): string[] {
  const base = ["-C", String(controlNumber), "--lld", "iscsi", "--op", op, "--mode", mode];
  return [...base, ...rest.map(String)];
}

export const showSystem = () => command("show", "sys");
export const deleteSystem = () => command("delete", "system");

export const showPortals = () => command("show", "portal");
export const newPortal = (portal: Portal) =>
  command("new", "portal", "--param", `portal=${portalText(portal)}`);
export const deletePortal = (portal: Portal) =>
  command("delete", "portal", "--param", `portal=${portalText(portal)}`);

export const showTargets = () => command("show", "target");
export const newTarget = (tid: number, name: string) =>
  command("new", "target", "--tid", tid, "--targetname", name);
export const deleteTarget = (tid: number, force: boolean) =>
  command("delete", "target", "--tid", tid, ...(force ? ["--force"] : []));
export const updateTarget = (tid: number, name: string, value: string) =>
  command("update", "target", "--tid", tid, "--name", name, "--value", value);

/** `-I` only: an address and a name in one call make an entry that cannot be taken away again. */
export const allowAddress = (tid: number, address: string) =>
  command("bind", "target", "--tid", tid, "--initiator-address", address);
export const denyAddress = (tid: number, address: string) =>
  command("unbind", "target", "--tid", tid, "--initiator-address", address);

export interface NewLun {
  readonly tid: number;
  readonly lun: number;
  /** Without commas, relative to tgtd's working directory. */
  readonly path: string;
  readonly blockBytes: number;
  readonly direct: boolean;
}

export const newLun = (options: NewLun) =>
  command(
    "new",
    "logicalunit",
    ...["--tid", options.tid, "--lun", options.lun, "--backing-store", options.path],
    ...["--bstype", "rdwr", "--blocksize", options.blockBytes],
    ...(options.direct ? ["--bsoflags", "direct"] : []),
  );
/** `readonly` cannot be set when the LUN is made, only afterwards. */
export const protectLun = (tid: number, lun: number, serial: string) =>
  command(
    "update",
    "logicalunit",
    ...["--tid", tid, "--lun", lun, "--params", `readonly=1,scsi_id=${serial},scsi_sn=${serial}`],
  );
export const deleteLun = (tid: number, lun: number) =>
  command("delete", "logicalunit", "--tid", tid, "--lun", lun);

export const showAccounts = () => command("show", "account");
export const bindAccount = (tid: number, user: string, direction: AccountDirection) =>
  command(
    "bind",
    "account",
    "--tid",
    tid,
    "--user",
    user,
    ...(direction === "outgoing" ? ["--outgoing"] : []),
  );
export const deleteAccount = (user: string) => command("delete", "account", "--user", user);

export const showConnections = (tid: number) => command("show", "conn", "--tid", tid);
export const deleteConnection = (tid: number, sid: number, cid: number) =>
  command("delete", "conn", "--tid", tid, "--sid", sid, "--cid", cid);

export const targetStatistics = (tid: number) => command("stat", "target", "--tid", tid);
