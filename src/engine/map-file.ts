/** The file behind a residency map; the engine keeps two of them (residency-store.ts). */
import { dirname } from "node:path";
import { syncFolder } from "../lib/atomic-file.ts";
import {
  closeSync,
  existsSync,
  fdatasync,
  ftruncateSync,
  openSync,
  readSync,
  write,
  writeSync,
} from "node:fs";

/** Storage of a map. Offsets and lengths in bytes; a range never written reads as zeroes. */
export interface MapFile {
  read(offset: number, into: Uint8Array): void;
  /** Stores at once, so that it outlives the process (not the machine's power). */
  writeNow(offset: number, data: Uint8Array): void;
  write(offset: number, data: Uint8Array): Promise<void>;
  /** Resolves when all that was written is durable. */
  sync(): Promise<void>;
  /** Empties the file. */
  clear(): void;
  close(): void;
}

/** Opens the file, making it (mode 0600, durably) if it is not there. */
export function openMapFile(path: string): MapFile & { readonly descriptor: number } {
  const isNew = !existsSync(path);
  const descriptor = openSync(path, isNew ? "wx+" : "r+", 0o600);
  if (isNew) syncFolder(dirname(path));
  // The system's errors about a descriptor do not say which file it is.
  const named = (error: unknown) => Object.assign(error as Error, { path });
  return {
    descriptor,
    read(offset, into) {
      let done = 0;
      while (done < into.length) {
        const count = readSync(descriptor, into, done, into.length - done, offset + done);
        if (count === 0) {
          into.fill(0, done);
          return;
        }
        done += count;
      }
    },
    writeNow(offset, data) {
      try {
        for (let done = 0; done < data.length;) {
          done += writeSync(descriptor, data, done, data.length - done, offset + done);
        }
      } catch (error) {
        throw named(error);
      }
    },
    write: (offset, data) =>
      writeAll(descriptor, offset, data).catch((error) => {
        throw named(error);
      }),
    sync: () =>
      new Promise((resolve, reject) =>
        fdatasync(descriptor, (error) => error ? reject(named(error)) : resolve())
      ),
    clear: () => ftruncateSync(descriptor, 0),
    close: () => closeSync(descriptor),
  };
}

/** Writes all of `data` at `offset`, short writes continued. */
export function writeAll(descriptor: number, offset: number, data: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    const next = (done: number) => {
      write(descriptor, data, done, data.length - done, offset + done, (error, count) => {
        if (error) reject(error);
        else if (done + count < data.length) next(done + count);
        else resolve();
      });
    };
    next(0);
  });
}
