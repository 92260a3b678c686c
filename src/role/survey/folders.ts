/** The state and the run folder: whether they can be used, and where they lie. */
import { accessSync, constants, existsSync, readFileSync, realpathSync, statfsSync } from "node:fs";
import { userInfo } from "node:os";
import { join } from "node:path";
import { DlsmError, errnoCode, messageOf } from "../../lib/errors.ts";
import { ensureFolder } from "../../lib/paths.ts";
import { formatSize } from "../../lib/units.ts";
import type { RoleFolders } from "../layout.ts";
import { type Finding, missing, note, ok } from "./finding.ts";

/** Journals are small, residency maps take 64 MiB for each TiB: less than this is soon gone. */
const littleBytes = 256 * 1024 * 1024;
const noneBytes = 1024 * 1024;
/** statfs(2): f_type of tmpfs and ramfs. */
const memoryTypes = [0x01021994, 0x858458f6];

/** Where logind has the folders of logged-in users, and the names of those that linger. */
interface Logins {
  readonly folders: string;
  readonly lingering: string;
}
const logind: Logins = { folders: "/run/user", lingering: "/var/lib/systemd/linger" };

export function folderFindings({ state, run }: RoleFolders, logins = logind): Finding[] {
  return [
    ...folderFinding("state-folder", state, "DLSM_STATE_DIR", logins),
    ...folderFinding("run-folder", run, "DLSM_RUN_DIR", logins),
  ];
}

function folderFinding(check: string, path: string, variable: string, logins: Logins): Finding[] {
  const refuse = (problem: string, hint: string) => [missing(check, path, problem, hint)];
  try {
    ensureFolder({ path, isShared: false }, check.replace("-", " "), variable);
    accessSync(path, constants.W_OK | constants.X_OK | constants.R_OK);
  } catch (error) {
    if (error instanceof DlsmError) return refuse(error.message, error.hint ?? "");
    const why = errnoCode(error) === "EROFS" ? "the file system is read-only" : messageOf(error);
    return refuse(
      `${path} cannot be written: ${why}`,
      `make it writable for this user, or name another folder in ${variable}`,
    );
  }
  const { type, bavail, bsize } = statfsSync(path);
  const freeBytes = bavail * bsize;
  const isMemory = memoryTypes.includes(type);
  const where = `${path}, ${formatSize(freeBytes)} free on ${fileSystemOf(path)}`;
  const isState = check === "state-folder";
  const more: Finding[] = [];
  if (isState && isMemory) more.push(inMemory(check, path, where));
  if (!isState && !isMemory) more.push(onDisk(check, path, where));
  if (!isState && goesAtLogout(path, logins)) more.push(ofLogin(check, path));
  if (freeBytes < noneBytes) {
    return [...more, missing(check, path, `${where}: there is no space`, "make space there")];
  }
  if (freeBytes < littleBytes && isState) {
    return [...more, note(check, path, `${where}, which is little`, "make space there")];
  }
  return more.length > 0 ? more : [ok(check, path, where)];
}

function inMemory(check: string, path: string, where: string): Finding {
  return note(
    check,
    path,
    `${where}: a reboot empties it, and no migration under way survives that`,
    "name a folder on a disk in DLSM_STATE_DIR",
  );
}

function onDisk(check: string, path: string, where: string): Finding {
  return note(
    check,
    path,
    `${where}: it is meant to be in memory (tmpfs), where marking a write costs least`,
    "name a folder on a tmpfs such as /run in DLSM_RUN_DIR, while no migration is under way",
  );
}

/** logind removes /run/user/UID at the user's last logout, unless the user lingers (loginctl(1)). */
export function goesAtLogout(path: string, { folders, lingering } = logind): boolean {
  return path.startsWith(`${folders}/`) && /^\d+\//.test(path.slice(folders.length + 1)) &&
    !lingers(lingering);
}

function lingers(folder: string): boolean {
  try {
    return existsSync(join(folder, userInfo().username));
  } catch {
    return false; // This uid has no name.
  }
}

function ofLogin(check: string, path: string): Finding {
  return note(
    check,
    path,
    `${path} is removed when this user has logged out, and what runs then cannot be asked any more`,
    "loginctl enable-linger, or name another folder in DLSM_RUN_DIR, while no migration is under way",
  );
}

/** Type and mount point, such as "ext4 at /var"; of the last mount that the path lies on. */
function fileSystemOf(path: string): string {
  try {
    const real = realpathSync(path);
    // "36 35 98:0 /root /mount/point options … - type source superoptions" (proc_pid_mountinfo(5)).
    const mounts = readFileSync("/proc/self/mountinfo", "utf8").trim().split("\n").map((line) => {
      const [before, after] = line.split(" - ");
      return { point: before.split(" ")[4], type: after.split(" ")[0] };
    }).filter(({ point }) => point === "/" || real === point || real.startsWith(`${point}/`));
    const last = mounts.reduce((best, each) => each.point.length >= best.point.length ? each : best);
    return `${last.type} at ${last.point}`;
  } catch {
    return "its file system";
  }
}
