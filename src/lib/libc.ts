/**
 * The few calls of the C library that neither Node nor Deno offers: fallocate(2), lseek(2) with SEEK_DATA and
 * SEEK_HOLE, flock(2), poll(2). Both runtimes can call them (`node:ffi`, `Deno.dlopen`); each call is synchronous.
 * The calls give no errno: a failure says only that it failed.
 */

interface Calls {
  fallocate(descriptor: number, mode: number, offset: bigint, length: bigint): number;
  lseek(descriptor: number, offset: bigint, whence: number): bigint;
  flock(descriptor: number, operation: number): number;
  poll(descriptors: Uint8Array, count: bigint, timeoutMs: number): number;
}

interface DenoFfi {
  dlopen(path: string, symbols: object): { symbols: Calls };
}

const libraryName = "libc.so.6";

async function load(): Promise<Calls> {
  const deno = (globalThis as { Deno?: DenoFfi }).Deno;
  if (deno !== undefined) {
    return deno.dlopen(libraryName, {
      fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
      lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
      flock: { parameters: ["i32", "i32"], result: "i32" },
      poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
    }).symbols;
  }
  const ffi = await import("node:ffi");
  const { functions } = ffi.dlopen(libraryName, {
    fallocate: { arguments: ["int32", "int32", "int64", "int64"], return: "int32" },
    lseek: { arguments: ["int32", "int64", "int32"], return: "int64" },
    flock: { arguments: ["int32", "int32"], return: "int32" },
    poll: { arguments: ["pointer", "uint64", "int32"], return: "int32" },
  });
  return functions as unknown as Calls;
}

const calls = await load();

const keepSize = 1;
const modes = { punchHole: 2 | keepSize, zeroRange: 16 | keepSize } as const;

/**
 * fallocate(2): makes the range read as zeroes, as a hole ("punchHole") or as allocated space ("zeroRange").
 * False if the file system cannot do that; then nothing changed.
 */
export function fallocate(
  descriptor: number,
  mode: keyof typeof modes,
  offsetBytes: number,
  lengthBytes: number,
): boolean {
  return calls.fallocate(descriptor, modes[mode], BigInt(offsetBytes), BigInt(lengthBytes)) === 0;
}

const whence = { data: 3, hole: 4 } as const;

/**
 * lseek(2) with SEEK_DATA or SEEK_HOLE: the first offset from `offsetBytes` on that lies in data, or in a
 * hole; -1 if there is none (no data until the end) or the file cannot tell.
 */
export function seek(descriptor: number, offsetBytes: number, what: keyof typeof whence): number {
  return Number(calls.lseek(descriptor, BigInt(offsetBytes), whence[what]));
}

/** flock(2): takes the exclusive lock of an open file at once, until it is closed. False if another has it. */
export function tryLock(descriptor: number): boolean {
  const exclusive = 2;
  const nonBlocking = 4;
  return calls.flock(descriptor, exclusive | nonBlocking) === 0;
}

/** poll(2): whether the other end of a socket is closed for good, though there may be data of it to read. */
export function isHungUp(descriptor: number): boolean {
  const hungUp = 0x10;
  // struct pollfd: descriptor, requested events (none: this one always comes), returned events.
  const poll = new DataView(new ArrayBuffer(8));
  poll.setInt32(0, descriptor, true);
  return calls.poll(new Uint8Array(poll.buffer), 1n, 0) > 0 && (poll.getInt16(6, true) & hungUp) !== 0;
}
