/** What journals a host has. */
import { FolderNode } from "./file-system.ts";
import type { Host } from "./world.ts";

/** Ids of the migrations whose journals a host has. */
export function recordsOf(host: Host): string[] {
  return ["/state/source", "/state/destination"].flatMap((path) => {
    const folder = host.files.find(path);
    return folder instanceof FolderNode
      ? [...folder.entries.keys()].filter((name) => !name.startsWith("."))
      : [];
  }).map((id) => id.split("-")[0]!);
}
