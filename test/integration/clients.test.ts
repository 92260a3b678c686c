/** What everybody uses on an NBD socket, on a volume's own: its output, not only its exit code. */
import { Buffer } from "node:buffer";
import { createHash, randomFillSync } from "node:crypto";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { type Detached, Dlsm } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { compare } from "./model-load.ts";
import { NbdClient } from "./nbd-client.ts";
import { type MapExtent, nbdMap, runTool, states } from "./nbd-tools.ts";

const test = suite("clients");
const withTools = needing(test, ["tgtd", "nbdinfo", "nbdcopy", "qemu-io", "qemu-img"]);

const sizeBytes = 64 * MiB;
const dataMiB = [0, 1, 2, 3, 8, 9, 10, 11, 40, 41, 42, 43];
/** What the sync brings at once; then it waits for hours. */
const firstPiece = 65536;

interface Volume extends Detached {
  readonly dlsm: Dlsm;
  readonly source: string;
  readonly destination: string;
  /** The disk as it has to be. */
  readonly model: Buffer;
}

/** With a volume that is handed over, and of which only `firstPiece` is here. */
async function handedOver(work: (volume: Volume) => Promise<void>): Promise<void> {
  const dlsm = new Dlsm();
  try {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeDisk(source, sizeBytes / MiB, dataMiB);
    const model = readFileSync(source);
    const frozen = sha256(model);
    const migration = await dlsm.migrateDetached(source, destination, ["--bwlimit", "1"]);
    const { id } = migration;
    await dlsm.until(id, (status) => status?.disks[0].residentBytes === firstPiece, "the first piece");
    // The volume stays for as long as somebody uses it.
    const user = await NbdClient.connect(migration.socket);
    await work({ ...migration, dlsm, source, destination, model });
    const { disks: [disk] } = (await dlsm.status(id))!;
    assert.is(disk.refetchedBytes, 0);
    await dlsm.ok("limit", id, "off");
    user.close();
    await dlsm.nothingLeft();
    compare(readFileSync(destination), model, 0, "the destination");
    assert.is(sha256(readFileSync(source)), frozen, "the source");
  } finally {
    await dlsm.close();
  }
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

const qemuIo = (uri: string, ...commands: string[]) =>
  runTool("qemu-io", "-f", "raw", ...commands.flatMap((command) => ["-c", command]), uri);

/** Whole extents out of the ones given, with `rest` between and around them. */
function filled(extents: readonly MapExtent[], rest: number): MapExtent[] {
  const all: MapExtent[] = [];
  let at = 0;
  for (const [offset, length, type] of [...extents, [sizeBytes, 0, rest] as const]) {
    if (offset > at) all.push([at, offset - at, rest]);
    if (length > 0) all.push([offset, length, type]);
    at = offset + length;
  }
  return all;
}

withTools(
  "nbdinfo shows the volume, nbdinfo --map and qemu-img map what is where",
  () =>
    handedOver(async ({ id, uri, socket, model }) => {
      const { exports: [shown] } = JSON.parse(await runTool("nbdinfo", "--json", uri));
      assert.is(shown["export-size"], sizeBytes);
      assert.is(shown.description, `dlsm ${id}`);
      assert.equal(shown.contexts, ["base:allocation", "dlsm:residency"]);
      for (const ability of ["flush", "fua", "trim", "zero", "fast_zero", "cache", "df", "multi_conn"]) {
        assert.is(shown[`can_${ability}`], true, ability);
      }
      assert.is(shown.is_read_only, false);
      assert.is(shown.uri, `nbd+unix:///?socket=${socket}`);
      assert.is(await runTool("nbdinfo", "--size", uri), String(sizeBytes));
      assert.match(await runTool("nbdinfo", uri), /export-size: 67108864 \(64M\)/);

      await qemuIo(
        uri,
        `read ${8 * MiB} 4k`,
        `write -P 1 ${9 * MiB} 64k`,
        `write -P 2 ${20 * MiB} 64k`,
        `write -z -u ${10 * MiB} 64k`,
        `discard ${11 * MiB} 64k`,
        // Of a hole of the source.
        `read -P 0 ${30 * MiB} 1M`,
      );
      model.fill(1, 9 * MiB, 9 * MiB + 65536).fill(2, 20 * MiB, 20 * MiB + 65536);
      model.fill(0, 10 * MiB, 10 * MiB + 65536).fill(0, 11 * MiB, 11 * MiB + 65536);
      const residency: MapExtent[] = [
        [0, firstPiece, states.fetched],
        [8 * MiB, 65536, states.fetched],
        [9 * MiB, 65536, states.written],
        [10 * MiB, 65536, states.written],
        [11 * MiB, 65536, states.written],
        [20 * MiB, 65536, states.written],
        [30 * MiB, MiB, states.fetched],
      ];
      assert.equal(await nbdMap(uri, "dlsm:residency"), filled(residency, states.absent));
      const text = await runTool("nbdinfo", "--map=dlsm:residency", uri);
      assert.match(text, /^ *9437184 +65536 +2 *$/m);

      // What is not here counts as data.
      const holes: MapExtent[] = [[10 * MiB, 65536, 3], [11 * MiB, 65536, 3], [30 * MiB, MiB, 3]];
      const map = await nbdMap(uri);
      assert.equal(map, filled(holes, 0));
      assert.match(await runTool("nbdinfo", "--map", uri), /^ *11534336 +65536 +3 +hole,zero *$/m);
      assert.match(await runTool("nbdinfo", "--map", "--totals", uri), /^ *1179648 +1\.8% +3 +hole,zero *$/m);
      const shownByQemu = JSON.parse(await runTool("qemu-img", "map", "--output=json", "-f", "raw", uri));
      assert.equal(
        shownByQemu.map((
          { start, length, data, zero }: Record<string, number>,
        ) => [start, length, data, zero]),
        filled(holes, 0).map(([start, length, type]) => [start, length, type === 0, type !== 0]),
      );
      const about = JSON.parse(await runTool("qemu-img", "info", "--output=json", "-f", "raw", uri));
      assert.is(about["virtual-size"], sizeBytes);
    }),
);

withTools(
  "qemu-img bench reads and writes, at depth 1 and more",
  () =>
    handedOver(async ({ dlsm, id, uri, model }) => {
      const bench = async (count: number, ...parameters: string[]) => {
        const output = await runTool(
          "qemu-img",
          "bench",
          "-f",
          "raw",
          "-c",
          String(count),
          ...parameters,
          uri,
        );
        assert.match(output, new RegExp(`^Sending ${count} (read|write) requests`, "m"));
        assert.match(output, /^Run completed in [0-9.]+ seconds\.$/m);
      };
      await bench(1000, "-d", "16", "-s", "4096", "-o", String(8 * MiB));
      await bench(200, "-d", "1", "-s", "65536", "-o", String(40 * MiB));
      const { fetchedBytes, refetchedBytes } = (await dlsm.status(id))!.disks[0];
      assert.ok(fetchedBytes.demand + fetchedBytes.readahead >= 4 * MiB, "4 MiB of data were read");
      assert.is(refetchedBytes, 0);

      const write = async (
        offset: number,
        count: number,
        size: number,
        step: number,
        pattern: number,
        ...more: string[]
      ) => {
        const range = ["-o", String(offset), "-s", String(size), "-S", String(step)];
        await bench(count, "-w", `--pattern=${pattern}`, ...range, ...more);
        for (let at = 0; at < count; at++) model.fill(pattern, offset + at * step, offset + at * step + size);
      };
      await write(0, 500, 4096, 8192, 0x5a, "-d", "32");
      // Parts of blocks, next to each other: every block is fetched once and written twice.
      await write(8 * MiB + 512, 1000, 2048, 2560, 0x6b, "-d", "16", "--flush-interval=100");
      await write(50 * MiB, 100, 4096, 4096, 0x7c, "-d", "1", "-t", "writethrough");
      await qemuIo(uri, `read -P ${0x5a} 0 4096`, `read -P ${0x6b} ${8 * MiB + 512 + 2560} 2048`);
    }),
);

withTools(
  "nbdcopy and qemu-img copy the volume out and in, and find it the same",
  () =>
    handedOver(async ({ dlsm, id, uri, model }) => {
      const copy = dlsm.path("copy");
      await runTool("nbdcopy", uri, copy);
      compare(readFileSync(copy), model, 0, "the copy");
      assert.ok(statSync(copy).blocks * 512 <= dataMiB.length * MiB + MiB, "its zeroes are holes");
      assert.match(
        await runTool("qemu-img", "compare", "-f", "raw", "-F", "raw", copy, uri),
        /^Images are identical\.$/m,
      );
      const { disks: [before] } = (await dlsm.status(id))!;

      // Another image over all of it: data where there was a hole, zeroes where there was data.
      const image = Buffer.alloc(sizeBytes);
      for (const at of [1, 8, 20, 21, 50]) randomFillSync(image, at * MiB + 12_345, MiB);
      const path = dlsm.path("image");
      writeFileSync(path, image);
      await runTool("nbdcopy", "--flush", path, uri);
      image.copy(model);
      await runTool("nbdcopy", "--connections=4", "--requests=32", uri, copy);
      compare(readFileSync(copy), model, 0, "the second copy");
      const { disks: [after] } = (await dlsm.status(id))!;
      assert.is(after.writtenBytes, sizeBytes);
      assert.equal(after.fetchedBytes, before.fetchedBytes, "nothing crossed any more");

      await runTool("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", dlsm.path("src.img"), uri);
      readFileSync(dlsm.path("src.img")).copy(model);
      assert.match(
        await runTool("qemu-img", "compare", "-f", "raw", "-F", "raw", dlsm.path("src.img"), uri),
        /^Images are identical\.$/m,
      );
    }),
);

withTools(
  "nbdcopy over a volume of which nothing is here: nothing has to cross",
  () =>
    handedOver(async ({ dlsm, id, uri, model }) => {
      const path = dlsm.path("image");
      randomFillSync(model);
      writeFileSync(path, model);
      await runTool("nbdcopy", "--flush", path, uri);
      const { disks: [disk] } = (await dlsm.status(id))!;
      assert.equal(disk.fetchedBytes, { demand: 0, readahead: 0, sync: firstPiece });
      assert.is(disk.overwrittenBytes, sizeBytes - firstPiece);
      assert.is(disk.residentBytes, sizeBytes);
      await dlsm.until(id, (status) => status?.phase !== "active", "synced, with the rate limit still there");
    }),
);

test.run();
