/**
 * The destination's local disk: a sparse file or a block device. The engine's only way to it.
 *
 * Through the page cache: data written is there for every reader at once and outlives the process; `sync`
 * makes it outlive the power. After a failed sync the kernel forgets which pages were lost, so that a later
 * success would prove nothing: the disk stays failed.
 */
import { close, constants, fdatasync, fstatSync, openSync, read } from "node:fs";
import { fallocate, seek } from "../lib/libc.ts";
import { writeAll } from "./map-file.ts";

/** Offsets and lengths in bytes, within the disk. A rejection is the system's error, with its `code`. */
export interface LocalDisk {
  /** Fills `into`. */
  read(offset: number, into: Uint8Array): Promise<void>;
  /** Resolves when the data outlives the process. */
  write(offset: number, data: Uint8Array): Promise<void>;
  /** Makes the range read as zeroes; `keepAllocated`: without giving space back. */
  zero(offset: number, length: number, keepAllocated: boolean): Promise<void>;
  /** Whether `zero` does not have to write zeroes. */
  readonly zeroesFast: boolean;
  /** The end of the piece of data or hole that starts at `offset`, at most `end`; device: all is data. */
  extentAt(offset: number, end: number): { isHole: boolean; end: number };
  /** Resolves when all that was written before the call is durable. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

/** No device has larger logical blocks. */
const sectorBytes = 4096;
/** Zeroes written at a time where the system has no quicker way. */
const zeroes = new Uint8Array(1024 * 1024);
/** Punched at a time, so that one call never holds the process for long. */
const punchBytes = 1024 * 1024 * 1024;

export function openLocalDisk(path: string): LocalDisk {
  const descriptor = openSync(path, constants.O_RDWR);
  const isFile = fstatSync(descriptor).isFile();
  let failure: Error | undefined;
  let canPunch = true;
  let canZeroRange = true;

  const quickZero = (offset: number, length: number, keepAllocated: boolean): boolean => {
    // A device takes whole sectors only; that it refuses a part of one says nothing of what it can do.
    if (!isFile && (offset % sectorBytes !== 0 || length % sectorBytes !== 0)) return false;
    if (keepAllocated) {
      return canZeroRange && (canZeroRange = fallocate(descriptor, "zeroRange", offset, length));
    }
    return canPunch && (canPunch = fallocate(descriptor, "punchHole", offset, length));
  };

  return {
    zeroesFast: isFile,
    read: (offset, into) =>
      new Promise((resolve, reject) => {
        const next = (done: number) => {
          read(descriptor, into, done, into.length - done, offset + done, (error, count) => {
            if (error) reject(error);
            else if (count === 0) reject(ioError(`${path} ends before ${offset + into.length}`));
            else if (done + count < into.length) next(done + count);
            else resolve();
          });
        };
        next(0);
      }),
    write: (offset, data) => writeAll(descriptor, offset, data),
    async zero(offset, length, keepAllocated) {
      const end = offset + length;
      for (let at = offset; at < end;) {
        const quick = Math.min(punchBytes, end - at);
        if (quickZero(at, quick, keepAllocated)) {
          at += quick;
          if (at < end) await new Promise<void>((resolve) => setImmediate(resolve));
          continue;
        }
        const slow = Math.min(zeroes.length, end - at);
        await writeAll(descriptor, at, slow === zeroes.length ? zeroes : zeroes.subarray(0, slow));
        at += slow;
      }
    },
    extentAt(offset, end) {
      if (!isFile) return { isHole: false, end };
      const data = seek(descriptor, offset, "data");
      if (data !== offset) return { isHole: true, end: data === -1 ? end : Math.min(data, end) };
      const hole = seek(descriptor, offset, "hole");
      return { isHole: false, end: hole === -1 ? end : Math.min(hole, end) };
    },
    sync: () =>
      new Promise((resolve, reject) => {
        if (failure !== undefined) return reject(failure);
        fdatasync(descriptor, (error) => {
          if (error) failure = error;
          if (error) reject(error);
          else resolve();
        });
      }),
    close: () => new Promise((resolve) => close(descriptor, () => resolve())),
  };
}

export function ioError(message: string): Error {
  return Object.assign(new Error(message), { code: "EIO" });
}
