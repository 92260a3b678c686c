/** The hand-off: what the volume does before it, how it happens, and what it does from then on. */
import { Buffer } from "node:buffer";
import { createHash, randomFillSync } from "node:crypto";
import { chmodSync, closeSync, existsSync, openSync, readFileSync, statSync, writeSync } from "node:fs";
import { suite } from "uvu";
import { execa } from "execa";
import * as assert from "uvu/assert";
import { command } from "../../src/nbd-server/protocol.ts";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { type Detached, Dlsm } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { rejection } from "../helpers/rejection.ts";
import { readIfThere, until } from "../helpers/until.ts";
import { within } from "../helpers/processes.ts";
import { startWriter } from "../helpers/writer.ts";
import { compare } from "./model-load.ts";
import { NbdClient } from "./nbd-client.ts";
import { nbdMap, runTool, states } from "./nbd-tools.ts";

const test = suite("hand-off");
const withTools = needing(test, ["tgtd", "nbdinfo", "nbdcopy", "qemu-io"]);

const sizeMiB = 64;
const sizeBytes = sizeMiB * MiB;

interface Attached extends Detached {
  readonly dlsm: Dlsm;
  readonly source: string;
  readonly destination: string;
  /** The source's content at the start. */
  readonly content: Buffer;
  readonly client: NbdClient;
}

/** With a volume that is attached and one client; both gone at the end. */
async function attached(
  options: readonly string[],
  work: (volume: Attached) => Promise<void>,
): Promise<void> {
  const dlsm = new Dlsm();
  try {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeDisk(source, sizeMiB, [0, 1, 2, 3, 10, 11, 30, 31, 32, 63]);
    const content = readFileSync(source);
    const migration = await dlsm.migrateDetached(source, destination, ["--handoff", "manual", ...options]);
    const client = await NbdClient.connect(migration.socket);
    try {
      await work({ ...migration, dlsm, source, destination, content, client });
    } finally {
      client.close();
    }
  } finally {
    await dlsm.close();
  }
}

/** Nothing was kept and nothing was written locally. */
async function isUntouched({ dlsm, id, uri, destination }: Attached): Promise<void> {
  const { phase, disks: [disk] } = (await dlsm.status(id))!;
  assert.is(phase, "attached");
  const { residentBytes, writtenBytes, fetchedBytes, holeBytes, overwrittenBytes } = disk;
  assert.equal({ residentBytes, writtenBytes, fetchedBytes, holeBytes, overwrittenBytes }, {
    residentBytes: 0,
    writtenBytes: 0,
    fetchedBytes: { demand: 0, readahead: 0, sync: 0 },
    holeBytes: 0,
    overwrittenBytes: 0,
  });
  assert.equal(await nbdMap(uri, "dlsm:residency"), [[0, sizeBytes, states.absent]]);
  const { size, blocks } = statSync(destination);
  assert.equal({ size, blocks }, { size: sizeBytes, blocks: 0 });
}

/** Writes a disk behind everybody's back. */
function change(path: string, offset: number, data: Uint8Array): void {
  const descriptor = openSync(path, "r+");
  try {
    writeSync(descriptor, data, 0, data.length, offset);
  } finally {
    closeSync(descriptor);
  }
}

/** As somebody would who wants to write a fenced source at any price. */
async function liftFence(path: string): Promise<void> {
  await execa("chattr", ["-i", path], { reject: false });
  chmodSync(path, 0o600);
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

withTools(
  "before activate: reads see the source as it is now, and nothing is kept",
  () =>
    attached([], async (volume) => {
      const { dlsm, id, uri, source, destination, content, client } = volume;
      const copy = dlsm.path("copy");
      for (let round = 0; round < 3; round++) {
        // Small and large, on block borders and not, in data and in holes; one after the other, as read-ahead likes it.
        const reads = [[0, 512], [MiB - 7, 4096], [5 * MiB + 1, 1], [30 * MiB, 2 * MiB], [
          sizeBytes - 99,
          99,
        ]];
        for (const [offset, length] of reads) compare(await client.read(offset, length), content, offset);
        for (let at = 0; at < 2 * MiB; at += 65536) compare(await client.read(at, 65536), content, at);
        await client.prefetch(0, 4 * MiB);
        await client.flush();
        await runTool("nbdcopy", uri, copy);
        compare(readFileSync(copy), content, 0, `the copy of round ${round}`);
        await isUntouched(volume);
        // The source's user goes on: in what was read before and in what was not, in holes and in data.
        for (const [offset, length] of [[0, 1], [MiB, 8192], [5 * MiB + 513, 70_000], [62 * MiB, 2 * MiB]]) {
          randomFillSync(content, offset, length);
          change(source, offset, content.subarray(offset, offset + length));
        }
      }
      compare(await client.read(0, 4 * MiB), content, 0, "after the last change");
      await dlsm.ok("abort", id);
      await rejection(client.read(0, 1), Error);
      assert.is(existsSync(destination), false);
      await dlsm.nothingLeft();
      assert.is(sha256(readFileSync(source)), sha256(content));
    }),
);

withTools(
  "explicit: writes before activate wait for it, all else is answered; then they are local",
  () =>
    attached(["--bwlimit", "1"], async (volume) => {
      const { dlsm, id, socket, source, destination, content, client } = volume;
      const model = Buffer.from(content);
      const other = await NbdClient.connect(socket);
      let answered = 0;
      const waiting = Promise.all([
        client.write(10 * MiB, Buffer.alloc(65536, 1)),
        client.write(11 * MiB + 5, Buffer.alloc(3, 2), { fua: true }),
        client.zero(30 * MiB + 100, 8192),
        other.trim(31 * MiB, 65536),
        other.write(20 * MiB, Buffer.alloc(4096, 3)),
      ].map((request) => request.then(() => answered++)));
      // What fails first is what is told.
      waiting.catch(() => {});
      model.fill(1, 10 * MiB, 10 * MiB + 65536);
      model.fill(2, 11 * MiB + 5, 11 * MiB + 8);
      model.fill(0, 30 * MiB + 100, 30 * MiB + 100 + 8192);
      model.fill(0, 31 * MiB, 31 * MiB + 65536);
      model.fill(3, 20 * MiB, 20 * MiB + 4096);
      for (const connection of [client, other]) {
        compare(await connection.read(10 * MiB, MiB), content, 10 * MiB, "before activate");
        await connection.flush();
        await connection.prefetch(10 * MiB, MiB);
      }
      const third = await NbdClient.connect(socket);
      compare(await third.read(31 * MiB, 65536), content, 31 * MiB, "before activate");
      third.close();
      await isUntouched(volume);
      assert.is(answered, 0);

      const { exitCode, stdout } = await dlsm.run("activate", id, "--json");
      assert.is(exitCode, 0);
      assert.is(JSON.parse(stdout).phase, "active");
      await waiting;
      compare(await client.read(0, 32 * MiB), model, 0, "after activate");
      assert.is(sha256(readFileSync(source)), sha256(content));
      client.close();
      other.close();
      await dlsm.ok("limit", id, "off");
      await dlsm.nothingLeft();
      compare(readFileSync(destination), model, 0, "the destination");
      assert.is(sha256(readFileSync(source)), sha256(content));
    }),
);

withTools(
  "first-write: the first write is the hand-off",
  () =>
    attached(["--activate", "first-write", "--bwlimit", "1"], async (volume) => {
      const { dlsm, id, source, destination, content, client } = volume;
      const model = Buffer.from(content);
      // What was read before the hand-off was not kept: the source changes once more, and that is what counts.
      compare(await client.read(10 * MiB, MiB), content, 10 * MiB);
      await client.prefetch(10 * MiB, MiB);
      await client.flush();
      randomFillSync(model, 10 * MiB, 65536);
      change(source, 10 * MiB, model.subarray(10 * MiB, 10 * MiB + 65536));
      const frozen = sha256(readFileSync(source));
      await isUntouched(volume);

      // All on one connection at once: each block read, written and read again.
      const requests: Promise<void>[] = [];
      for (let at = 11 * MiB; at < 12 * MiB; at += 16384) {
        const [before, after] = [Buffer.from(model.subarray(at, at + 4096)), Buffer.alloc(4096, at / 16384)];
        requests.push(
          client.read(at, 4096).then((data) => {
            // Under way at the same time as the write: either is right.
            if (!data.equals(after)) compare(data, before, 0, "read beside the write");
          }),
        );
        requests.push(
          client.write(at, after).then(async () => {
            compare(await client.read(at, 4096), after, 0, "read after the write");
          }),
        );
        after.copy(model, at);
      }
      await Promise.all(requests);
      assert.is((await dlsm.status(id))!.phase, "active");
      compare(await client.read(10 * MiB, 2 * MiB), model, 10 * MiB, "after the first write");
      assert.is(sha256(readFileSync(source)), frozen);
      client.close();
      await dlsm.ok("limit", id, "off");
      await dlsm.nothingLeft();
      compare(readFileSync(destination), model, 0, "the destination");
      assert.is(sha256(readFileSync(source)), frozen);
    }),
);

withTools(
  "after activate: reads are kept, writes stay local, the map says which is which",
  () =>
    attached(["--bwlimit", "1"], async (volume) => {
      const { dlsm, id, uri, source, destination, content, client } = volume;
      const model = Buffer.from(content);
      await dlsm.ok("pause", id);
      await dlsm.ok("activate", id);
      assert.equal(await nbdMap(uri, "dlsm:residency"), [[0, sizeBytes, states.absent]]);

      // One small read brings the 64 KiB around it.
      compare(await client.read(10 * MiB + 70_000, 100), content, 10 * MiB + 70_000);
      await client.write(30 * MiB, Buffer.alloc(8192, 7));
      await client.write(30 * MiB + 65536 + 1000, Buffer.alloc(10, 8), { fua: true });
      await client.zero(31 * MiB, 4096);
      await client.trim(31 * MiB + 8192, 4096);
      model.fill(7, 30 * MiB, 30 * MiB + 8192);
      model.fill(8, 30 * MiB + 65536 + 1000, 30 * MiB + 65536 + 1010);
      model.fill(0, 31 * MiB, 31 * MiB + 4096);
      model.fill(0, 31 * MiB + 8192, 31 * MiB + 12_288);
      const ranges: [offset: number, length: number, state: number][] = [
        [10 * MiB + 65536, 65536, states.fetched],
        [30 * MiB, 8192, states.written],
        [30 * MiB + 65536, 4096, states.written],
        [31 * MiB, 4096, states.written],
        [31 * MiB + 8192, 4096, states.written],
      ];
      const expected = ranges.flatMap(([offset, length, state], index) => {
        const end = offset + length;
        return [[offset, length, state], [end, (ranges[index + 1]?.[0] ?? sizeBytes) - end, states.absent]];
      });
      assert.equal(await nbdMap(uri, "dlsm:residency"), [[0, ranges[0][0], states.absent], ...expected]);

      // What is here does not come from the source again, whatever happens there.
      const kept = 10 * MiB + 65536;
      await liftFence(source);
      change(source, kept, Buffer.alloc(65536, 0xee));
      compare(await client.read(kept, 65536), model, kept, "what was kept");
      change(source, kept, content.subarray(kept, kept + 65536));
      compare(
        await client.read(30 * MiB, 2 * MiB),
        model,
        30 * MiB,
        "what was written here, and what is around it",
      );
      assert.is(sha256(readFileSync(source)), sha256(content));

      await dlsm.ok("limit", id, "off");
      const { paused, disks: [disk] } = (await dlsm.status(id))!;
      assert.is(paused, true, "the pause from before the hand-off still holds");
      assert.is(disk.fetchedBytes.sync, 0);
      client.close();
      await dlsm.ok("resume", id, "--detach");
      await dlsm.nothingLeft();
      compare(readFileSync(destination), model, 0, "the destination");
      assert.is(sha256(readFileSync(source)), sha256(content));
    }),
);

withTools("resume before activate lifts a pause", () =>
  attached([], async (volume) => {
    const { dlsm, id, destination, content, client } = volume;
    await dlsm.ok("pause", id);
    assert.is((await dlsm.status(id))!.paused, true);
    await dlsm.ok("resume", id, "--detach");
    assert.is((await dlsm.status(id))!.paused, false);
    await isUntouched(volume);
    await dlsm.ok("activate", id);
    client.close();
    await dlsm.nothingLeft();
    assert.is(sha256(readFileSync(destination)), sha256(content));
  }));

withTools(
  "activate is refused while the source is open for writing, and nothing has changed",
  () =>
    attached([], async (volume) => {
      const { dlsm, id, source, content, client } = volume;
      const descriptor = openSync(source, "r+");
      try {
        const { exitCode, stderr } = await dlsm.run("activate", id);
        assert.is(exitCode, 3);
        assert.match(stderr, new RegExp(`process ${process.pid}\\b`));
        await isUntouched(volume);
      } finally {
        closeSync(descriptor);
      }
      await dlsm.ok("activate", id);
      client.close();
      await dlsm.nothingLeft();
      assert.is(sha256(readFileSync(volume.destination)), sha256(content));
    }),
);

withTools(
  "abort before activate, with writes that wait: they are not answered and leave nothing",
  () =>
    attached([], async (volume) => {
      const { dlsm, id, source, destination, content, client } = volume;
      const write = client.request({ type: command.write, offset: 0, payload: Buffer.alloc(4096, 9) });
      const refused = rejection(write, Error);
      refused.catch(() => {});
      compare(await client.read(0, 8192), content, 0);
      await dlsm.ok("abort", id);
      assert.match((await refused).message, /end of file/);
      assert.is(existsSync(destination), false);
      await dlsm.nothingLeft();
      assert.is(sha256(readFileSync(source)), sha256(content));
    }),
);

withTools(
  "the hand-off command is run once, although the hand-off itself is refused at first",
  async () => {
    const dlsm = new Dlsm();
    try {
      makeDisk(dlsm.path("src.img"), 8, [0, 1]);
      const count = dlsm.path("runs");
      // Somebody has the source open for writing after the command: the hand-off is refused, the command was run.
      const command = `echo run $DLSM_ID >>${count}`;
      const writer = await startWriter(dlsm.path("src.img"));
      const args = ["migrate", dlsm.path("src.img"), dlsm.path("dst.img"), "--handoff-command", command];
      let id: string;
      try {
        const { exitCode, stderr } = await dlsm.run(...args, "--detach");
        assert.is(exitCode, 1);
        [, id] = /([a-z0-9]{8}): |dlsm activate ([a-z0-9]{8})/.exec(stderr)!.filter(Boolean) as [
          string,
          string,
        ];
        assert.is((await dlsm.status(id))!.phase, "attached");
      } finally {
        await writer.stop();
      }
      await dlsm.ok("resume", id);
      assert.is(readFileSync(count, "utf8"), `run ${id}\n`);
      await dlsm.nothingLeft();
    } finally {
      await dlsm.close();
    }
  },
);

withTools(
  "a hand-off command that failed is run again by resume, although another process drives by then",
  async () => {
    const dlsm = new Dlsm();
    try {
      makeDisk(dlsm.path("src.img"), 8, [0, 1]);
      const places = [dlsm.path("src.img"), dlsm.path("dst.img")];
      const failed = await dlsm.run(
        "migrate",
        ...places,
        "--handoff-command",
        `test -e ${dlsm.path("ready")}`,
      );
      assert.is(failed.exitCode, 1);
      const [, id] = /dlsm resume (\w+)/.exec(failed.stderr)! as unknown as [string, string];
      const drives = ({ command }: { command: string }) => command.endsWith(` drive ${id}`);
      const place = dlsm.path(`run/${id}/dst/driver`);
      // It may be written at this moment, or taken away by whoever had it before.
      const hasPlace = ({ pid }: { pid: number }) => readIfThere(place).includes(`"pid":${pid},`);
      await until(() => dlsm.processes().filter(drives).some(hasPlace), "one in the background");
      closeSync(openSync(dlsm.path("ready"), "w"));
      await within(dlsm.ok("resume", id), "resume");
      assert.ok(readFileSync(places[1]!).equals(readFileSync(places[0]!)));
      await dlsm.nothingLeft();
    } finally {
      await dlsm.close();
    }
  },
);

test.run();
