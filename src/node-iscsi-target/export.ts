/** One disk, exported and locked down in one call. */
import { type Chap, checkAllowed, checkChap, checkSerial, checkTargetName, familyOf } from "./check.ts";
import type { Control } from "./control.ts";
import { describePath, type Disk, type DiskPath, inspectDisk } from "./disk.ts";
import { TgtError } from "./errors.ts";
import { tearDown } from "./teardown.ts";
import type { AccountDirection, Portal } from "./types.ts";
import { isOpenedReadOnly, makeView, removeView, type Viewer, type ViewKind } from "./view.ts";

export interface ExportOptions {
  /** A file or block device. Any path; as bytes where it is not UTF-8. */
  readonly path: DiskPath;
  /** `iqn.…`; make it unguessable. */
  readonly targetName: string;
  /** SCSI id and serial number, unique to the disk: at most 36 letters, digits or `. _ : -`. */
  readonly serial: string;
  /** Default: the device's logical block size; 512 for a file. */
  readonly blockBytes?: 512 | 4096;
  /** The IP address of the one host that may log in. */
  readonly allow: string;
  readonly chap: Chap;
  /** O_DIRECT: past the page cache. Wants I/O threads. Default: false. */
  readonly direct?: boolean;
}

export interface ExportedDisk {
  readonly tid: number;
  readonly lun: 1;
  readonly portal: Portal;
  readonly sizeBytes: number;
  readonly blockBytes: 512 | 4096;
  /** tgtd's descriptor of the disk allows no writing: seen in /proc. The LUN is read-only in any case. */
  readonly openedReadOnly: boolean;
  /** How tgtd sees the disk; see view.ts. */
  readonly view: ViewKind;
}

/** LUN 0 of every target is tgtd's controller. */
const diskLun = 1;

/**
 * Target → accounts, bound → LUN → read-only → checked → the one address that may log in: at no moment can
 * anybody log in without proof, or write. On failure everything made here is taken away again.
 *
 * Throws TgtError "invalidArgument", "badDisk", "permission", "targetExists", "userExists", "notReadOnly", ….
 */
export async function exportDisk(
  control: Control,
  viewer: Viewer,
  options: ExportOptions,
): Promise<ExportedDisk> {
  checkTargetName(options.targetName);
  checkSerial(options.serial);
  checkChap(options.chap);
  const allowed = checkAllowed(options.allow);
  const disk = inspectDisk(options.path, options.blockBytes);
  const portal = await portalFor(control, allowed.family);
  const tid = await freeTid(control, options.targetName);

  const newUsers: string[] = [];
  let madeTarget = false;
  try {
    await control.newTarget(tid, options.targetName);
    madeTarget = true;
    for (const [credentials, direction] of credentialsOf(options.chap)) {
      await control.newAccount(credentials);
      newUsers.push(credentials.user);
      await control.bindAccount(tid, credentials.user, direction);
    }
    const view = await makeView(viewer, tid, disk);
    await addDisk(control, tid, disk, view.path, options.direct ?? false);
    await control.protectLun(tid, diskLun, options.serial);
    await verify(control, tid, disk, options);
    const openedReadOnly = isOpenedReadOnly(viewer, disk) ?? false;
    await control.allowAddress(tid, allowed.address);
    const { sizeBytes, blockBytes } = disk;
    return { tid, lun: diskLun, portal, sizeBytes, blockBytes, openedReadOnly, view: view.kind };
  } catch (error) {
    await undo(control, viewer, tid, madeTarget, newUsers).catch((undoError) => {
      throw new AggregateError([error, undoError], `${(error as Error).message}; and it could not be undone`);
    });
    throw error;
  }
}

function credentialsOf({ incoming, outgoing }: Chap) {
  const all: [Chap["incoming"], AccountDirection][] = [[incoming, "incoming"]];
  if (outgoing !== undefined) all.push([outgoing, "outgoing"]);
  return all;
}

/** The portal that the allowed host can reach: one of the same family. */
async function portalFor(control: Control, family: 4 | 6): Promise<Portal> {
  const portals = await control.portals();
  const portal = portals.find((each) => familyOf(each) === family);
  if (portal !== undefined) return portal;
  throw new TgtError(
    "invalidArgument",
    `an IPv${family} address may log in, but tgtd listens on ${
      portals.map((each) => each.address).join(", ")
    } only`,
  );
}

async function freeTid(control: Control, targetName: string): Promise<number> {
  const targets = await control.targets();
  if (targets.some((target) => target.name === targetName)) {
    throw new TgtError("targetExists", `target ${targetName} exists already`);
  }
  const used = new Set(targets.map((target) => target.tid));
  let tid = 1;
  while (used.has(tid)) tid++;
  return tid;
}

async function addDisk(
  control: Control,
  tid: number,
  disk: Disk,
  path: string,
  direct: boolean,
): Promise<void> {
  try {
    await control.newLun({ tid, lun: diskLun, path, blockBytes: disk.blockBytes, direct });
  } catch (cause) {
    if (!(cause instanceof TgtError)) throw cause;
    throw new TgtError(cause.reason, `tgtd cannot open ${describePath(disk.path)}: ${cause.message}`, {
      cause,
    });
  }
}

/** tgtd cuts ids off and overrides block sizes without a word, so what it made is looked at. */
async function verify(control: Control, tid: number, disk: Disk, options: ExportOptions): Promise<void> {
  const target = (await control.targets()).find((each) => each.tid === tid);
  const lun = target?.luns.find((each) => each.lun === diskLun);
  const name = describePath(disk.path);
  if (target === undefined || lun === undefined) {
    throw new TgtError("noLun", `the LUN of ${name} is not there`);
  }
  if (!lun.readOnly) throw new TgtError("notReadOnly", `the LUN of ${name} did not become read-only`);
  if (lun.blockBytes !== disk.blockBytes || lun.serial !== options.serial || lun.scsiId !== options.serial) {
    throw new TgtError("badReply", `tgtd made another LUN of ${name} than it was asked for`);
  }
  const bound = credentialsOf(options.chap).every(([{ user }, direction]) =>
    target.accounts.some((account) => account.user === user && account.direction === direction)
  );
  if (!bound) throw new TgtError("badReply", `target ${target.name} does not ask for its accounts`);
  const { sizeBytes } = inspectDisk(options.path, options.blockBytes);
  if (sizeBytes !== disk.sizeBytes) {
    throw new TgtError("badDisk", `${name} changed its size while it was being exported`);
  }
}

async function undo(control: Control, viewer: Viewer, tid: number, madeTarget: boolean, newUsers: string[]) {
  const target = madeTarget ? (await control.targets()).find((each) => each.tid === tid) : undefined;
  if (target !== undefined) await tearDown(control, target);
  const left = await control.accounts();
  for (const user of newUsers.filter((each) => left.includes(each))) await control.deleteAccount(user);
  await removeView(viewer, tid);
}
