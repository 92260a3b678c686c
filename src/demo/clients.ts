/** What the demo's two clients do with the disk while it moves: one reads, the other reads and writes. */
import type { ExpectedDisk } from "./expected-disk.ts";
import type { QemuIo } from "./qemu-io.ts";
import type { Random } from "./random.ts";
import { pieceBytes, type SampleDisk } from "./sample-disk.ts";

const KiB = 1024;
const randomReads = 240;
const sequentialReads = 64;
const sequentialBytes = 128 * KiB;
const blockBytes = 4 * KiB;
const wholeBlockWrites = 120;
const smallWrites = 60;
const smallBytes = 3000;

/** What the clients have done so far, and whether it was right. */
export class Account {
  reads = 0;
  readBytes = 0;
  writes = 0;
  writtenBytes = 0;
  /** Written as zeroes, or trimmed. */
  zeroedBytes = 0;
  /** Where a read gave something else than it must. */
  readonly differences: { readonly offset: number; readonly length: number }[] = [];
}

abstract class Client {
  protected readonly io: QemuIo;
  protected readonly account: Account;
  protected readonly expected: ExpectedDisk;

  constructor(io: QemuIo, account: Account, expected: ExpectedDisk) {
    this.io = io;
    this.account = account;
    this.expected = expected;
  }

  /** Reads, compares, and returns how long the client waited for it. */
  async read(offset: number, length: number): Promise<number> {
    const { data, latencyMs } = await this.io.read(offset, length);
    this.account.reads++;
    this.account.readBytes += length;
    if (!data.equals(await this.expected.read(offset, length))) {
      this.account.differences.push({ offset, length });
    }
    return latencyMs;
  }
}

/** Reads where the file system has data. */
export class Reader extends Client {
  readonly #pieces: readonly number[];
  readonly #random: Random;

  constructor(io: QemuIo, account: Account, expected: ExpectedDisk, disk: SampleDisk, random: Random) {
    super(io, account, expected);
    this.#pieces = disk.dataPieces;
    this.#random = random;
  }

  /** A block at a random place. */
  readBlock(): Promise<number> {
    return this.read(
      this.#random.pick(this.#pieces) + blockBytes * this.#random.below(pieceBytes / blockBytes),
      blockBytes,
    );
  }

  /** Up to 32 KiB, at any byte. */
  readSome(): Promise<number> {
    const length = 1 + this.#random.below(32 * KiB);
    return this.read(this.#random.pick(this.#pieces) + this.#random.below(pieceBytes - length), length);
  }

  async readALot(): Promise<void> {
    for (let n = 0; n < randomReads; n++) await this.readSome();
    // One stretch in order, such as reading a file is.
    const from = this.#pieces[Math.floor(this.#pieces.length / 2)];
    for (let n = 0; n < sequentialReads; n++) await this.read(from + n * sequentialBytes, sequentialBytes);
  }
}

/** Writes behind the file system, which thereby stays as it is, and reads there too. */
export class Writer extends Client {
  readonly #from: number;
  readonly #length: number;
  readonly #random: Random;

  constructor(io: QemuIo, account: Account, expected: ExpectedDisk, disk: SampleDisk, random: Random) {
    super(io, account, expected);
    this.#from = disk.layout.fileSystemBytes;
    this.#length = disk.layout.areaBytes;
    this.#random = random;
  }

  async writeALot(): Promise<void> {
    const sixteenth = this.#length / 16;
    // Whole blocks where the source has data that is not here yet: it never has to come.
    await this.#trim(this.#from + sixteenth, sixteenth / 2);
    await this.#writeZeroes(this.#from + 3 * sixteenth, sixteenth / 2);
    for (let n = 0; n < wholeBlockWrites; n++) {
      const blocks = 1 + this.#random.below(32);
      await this.#write(this.#place(blocks * blockBytes, blockBytes), blocks * blockBytes);
      // Parts of blocks, at any byte: those have to be fetched first.
      if (n % (wholeBlockWrites / smallWrites) === 0) {
        const length = 1 + this.#random.below(smallBytes);
        await this.#write(this.#place(length, 1), length);
      }
      if (n % 4 === 0) await this.read(this.#place(64 * KiB, 1), 64 * KiB);
    }
    await this.io.flush();
  }

  /** A random place for `length` bytes, at a multiple of `alignment`. */
  #place(length: number, alignment: number): number {
    return this.#from + alignment * this.#random.below((this.#length - length) / alignment + 1);
  }

  async #write(offset: number, length: number): Promise<void> {
    const data = this.#random.bytes(length);
    await this.io.write(offset, data);
    this.expected.write(offset, data);
    this.account.writes++;
    this.account.writtenBytes += length;
  }

  async #writeZeroes(offset: number, length: number): Promise<void> {
    await this.io.writeZeroes(offset, length);
    this.#zeroed(offset, length);
  }

  /** Trimmed blocks read as zeroes here. */
  async #trim(offset: number, length: number): Promise<void> {
    await this.io.trim(offset, length);
    this.#zeroed(offset, length);
  }

  #zeroed(offset: number, length: number): void {
    this.expected.write(offset, Buffer.alloc(length));
    this.account.zeroedBytes += length;
  }
}
