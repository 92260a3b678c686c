/** What the map on disk tells of a volume whose engine does not run. */
import { closeSync, existsSync } from "node:fs";
import { engineFiles } from "./config.ts";
import type { EngineFolders } from "./engine.ts";
import { readHeader } from "./residency-store.ts";
import { openMapFile } from "./map-file.ts";

/** Undefined if there is no map, or none that can be used. */
export function readStoredStatus(folders: EngineFolders): { readonly activated: boolean } | undefined {
  const path = `${folders.state}/${engineFiles.map}`;
  if (!existsSync(path)) return undefined;
  const file = openMapFile(path);
  try {
    const header = readHeader(file);
    return header === undefined ? undefined : { activated: header.activated };
  } catch {
    return undefined;
  } finally {
    closeSync(file.descriptor);
  }
}
