/** What the kernel can do: modules that are loaded, built in, or can be loaded. */
import { existsSync, readFileSync } from "node:fs";
import { release } from "node:os";
import { type Finding, note, ok } from "./finding.ts";

export type ModuleState = "there" | "loadable" | "absent";

interface Feature {
  readonly check: string;
  /** The module's name with `_`, as /sys/module has it. */
  readonly module: string;
  /** Something that is there only where the kernel can do it now. */
  readonly sign: string;
  readonly what: string;
}

const features: readonly Feature[] = [
  { check: "nbd", module: "nbd", sign: "/sys/module/nbd", what: "volumes as /dev/nbdN" },
  {
    check: "device-mapper",
    module: "dm_mod",
    sign: "/dev/mapper/control",
    what: "volumes under /dev/mapper",
  },
  { check: "loop", module: "loop", sign: "/dev/loop-control", what: "disk images as block devices" },
];

/** None of these is needed: without them a volume is used over its NBD socket. */
export function kernelFindings(): Finding[] {
  return features.map(({ check, module, sign, what }) => {
    const state = existsSync(sign) ? "there" : moduleState(module, release());
    if (state === "there") return ok(check, module, `the kernel has ${module} (${what})`);
    if (state === "loadable") {
      return note(check, module, `the module ${module} is not loaded (${what})`, `modprobe ${module}`);
    }
    return note(check, module, `the kernel ${release()} has no ${module} (${what}); none is needed`, null);
  });
}

/** Whether the kernel has a module, or finds it among those that were installed for it. */
export function moduleState(name: string, kernel: string, root = "/lib/modules"): ModuleState {
  const file = new RegExp(`^(?:[^ :]*/)?${name.replaceAll("_", "[_-]")}\\.ko(\\.\\w+)?(:|$)`, "m");
  if (file.test(textOf(`${root}/${kernel}/modules.builtin`))) return "there";
  return file.test(textOf(`${root}/${kernel}/modules.dep`)) ? "loadable" : "absent";
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
