/** What the volume must hold: the source, with what the client wrote since on top of it. */
import { type FileHandle, open } from "node:fs/promises";
import { FailedError } from "../lib/errors.ts";
import { readUpTo } from "./sample-disk.ts";

interface Written {
  readonly offset: number;
  readonly data: Uint8Array;
}

export class ExpectedDisk {
  readonly #source: FileHandle;
  readonly #written: Written[] = [];

  private constructor(source: FileHandle) {
    this.#source = source;
  }

  static async open(sourcePath: string): Promise<ExpectedDisk> {
    return new ExpectedDisk(await open(sourcePath, "r"));
  }

  /** `data` is kept: it must not be changed afterwards. */
  write(offset: number, data: Uint8Array): void {
    this.#written.push({ offset, data });
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const expected = Buffer.allocUnsafe(length);
    const { length: found } = await readUpTo(this.#source, expected, offset);
    if (found < length) throw new FailedError(`the source ends at ${offset + found}`);
    // In the order in which they were written: the last one counts.
    for (const { offset: from, data } of this.#written) {
      const start = Math.max(offset, from);
      const end = Math.min(offset + length, from + data.length);
      if (start < end) expected.set(data.subarray(start - from, end - from), start - offset);
    }
    return expected;
  }

  close(): Promise<void> {
    return this.#source.close();
  }
}
