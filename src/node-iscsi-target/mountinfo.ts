/** /proc/PID/mountinfo (proc_pid_mountinfo(5)). Pure. */

export interface Mount {
  readonly mountPoint: string;
  /** Per mount, e.g. ["ro", "nosuid", "relatime"]. */
  readonly options: readonly string[];
}

/** The kernel writes space, tab, newline and backslash as `\040`, `\011`, `\012`, `\134`. */
function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
}

export function parseMountinfo(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split("\n")) {
    const fields = line.split(" ");
    if (fields.length < 7) continue;
    mounts.push({ mountPoint: unescape(fields[4]!), options: fields[5]!.split(",") });
  }
  return mounts;
}

/**
 * The options that make a bind mount read-only and leave the rest as it is. In a user namespace the kernel
 * refuses to take nosuid, nodev and the like away, so they must be said again.
 */
export function readOnlyOptions(mount: Mount): string {
  const kept = mount.options.filter((option) => option !== "rw" && option !== "ro");
  return ["remount", "bind", "ro", ...kept].join(",");
}
