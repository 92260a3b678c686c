/** Where the programs are that this room runs. */
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { TgtError } from "./errors.ts";

/** Full paths. */
export interface Programs {
  readonly tgtd: string;
  readonly tgtadm: string;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** As a shell finds it, and in the sbin folders, which are not on an ordinary user's PATH. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? "").split(delimiter), "/usr/local/sbin", "/usr/sbin", "/sbin"];
  return folders.filter((folder) => folder !== "").map((folder) => join(folder, name)).find(isExecutable);
}

/** Throws TgtError "notInstalled". */
export function findPrograms(given: Partial<Programs> = {}): Programs {
  const locate = (name: "tgtd" | "tgtadm"): string => {
    const path = given[name];
    const found = path === undefined ? findProgram(name) : isExecutable(path) ? path : undefined;
    if (found !== undefined) return found;
    throw new TgtError("notInstalled", `${path ?? name} is not installed on this host`, {
      hint: "apt install tgt",
    });
  };
  return { tgtd: locate("tgtd"), tgtadm: locate("tgtadm") };
}

/** The environment of everything that is run here: messages in English, and no variable of the caller's. */
export function environment(extra: Record<string, string> = {}): Record<string, string> {
  const path = process.env.PATH ?? "";
  return { PATH: `${path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin`, LC_ALL: "C", ...extra };
}
