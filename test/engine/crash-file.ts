/**
 * A map file that can lose its power: of what was written since the last sync, every 512-byte sector may or
 * may not have reached the disk, in any of its versions. Its process can be killed before any of its writes.
 */
import { MemoryMapFile, type Random } from "./memory.ts";

const sectorBytes = 512;

export class Killed extends Error {}

export class CrashFile extends MemoryMapFile {
  /** Per sector: what may be on the disk, the oldest first; the last one is what reads give. */
  readonly #versions = new Map<number, Uint8Array[]>();
  /** Writes until the process is killed. */
  writesLeft = Infinity;

  constructor(bytes: Uint8Array = new Uint8Array(0)) {
    super();
    this.bytes = bytes.slice();
  }

  override writeNow(offset: number, data: Uint8Array): void {
    if (this.writesLeft-- <= 0) throw new Killed();
    if (this.failing !== undefined) throw this.failing;
    const first = Math.floor(offset / sectorBytes);
    const end = Math.ceil((offset + data.length) / sectorBytes);
    for (let sector = first; sector < end; sector++) {
      if (!this.#versions.has(sector)) this.#versions.set(sector, [this.#sector(sector)]);
    }
    super.writeNow(offset, data);
    for (let sector = first; sector < end; sector++) {
      this.#versions.get(sector)!.push(this.#sector(sector));
    }
  }

  /** What is written while it runs is not covered. */
  override async sync(): Promise<void> {
    const covered = new Map([...this.#versions].map(([sector, versions]) => [sector, versions.length]));
    await new Promise<void>((resolve) => setImmediate(resolve));
    if (this.writesLeft <= 0) throw new Killed();
    if (this.failing !== undefined) throw this.failing;
    for (const [sector, count] of covered) {
      const versions = this.#versions.get(sector)!;
      versions.splice(0, count - 1);
      if (versions.length === 1) this.#versions.delete(sector);
    }
  }

  /** The file as a power failure may leave it. */
  afterPowerLoss(random: Random): CrashFile {
    const left = new CrashFile(this.bytes);
    for (const [sector, versions] of this.#versions) {
      left.bytes.set(versions[random.below(versions.length)], sector * sectorBytes);
    }
    return left;
  }

  #sector(number: number): Uint8Array {
    const content = new Uint8Array(sectorBytes);
    this.read(number * sectorBytes, content);
    // A file grows by whole sectors, so that one that is lost can be put back.
    if (this.bytes.length < (number + 1) * sectorBytes) super.writeNow(number * sectorBytes, content);
    return content;
  }
}
