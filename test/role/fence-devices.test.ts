/** The fence of block devices: real loop devices, writers and tgtd. */
import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from "node:fs";
import { basename } from "node:path";
import { execa } from "execa";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { MiB } from "../helpers/disk.ts";
import { attachLoop, needingLoop } from "../helpers/loop-device.ts";
import { needing } from "../helpers/needs.ts";
import { startWriter } from "../helpers/writer.ts";
import { id, newDisk, refusalOf, withExported } from "./fencing.ts";

const test = suite("fence: devices");
const withLoop = await needingLoop(test, needing(test, ["tgtd"]));

const isReadOnly = (device: string) =>
  readFileSync(`/sys/block/${basename(device)}/ro`, "utf8").trim() === "1";

async function withLoopDevice(use: (device: string, file: string) => Promise<void>): Promise<void> {
  const file = newDisk();
  const loop = await attachLoop(file);
  try {
    await use(loop.path, file);
  } finally {
    await execa("blockdev", ["--setrw", loop.path]);
    await loop.detach();
  }
}

/** Past the page cache's knowledge of who may: true if the kernel took it. */
function canWrite(descriptor: number): boolean {
  try {
    writeSync(descriptor, Buffer.alloc(512, "y"), 0, 512, 0);
    fsyncSync(descriptor);
    return true;
  } catch {
    return false;
  }
}

withLoop("a block device is made read-only, also for who has it open, and given back", async () => {
  await withLoopDevice(async (device) => {
    await withExported(device, async (exported) => {
      const writer = openSync(device, "r+");
      try {
        assert.is(canWrite(writer), true);
        assert.equal((await exported.role.fence({ id, force: true })).kinds, ["readOnly"]);
        assert.is(isReadOnly(device), true);
        assert.is(canWrite(writer), false);
        assert.is(await exported.danger(), "none");
        await exported.role.unfence({ id });
        assert.is(isReadOnly(device), false);
        assert.is(canWrite(writer), true);
      } finally {
        closeSync(writer);
      }
    });
  });
});

withLoop("a device that was read-only before stays so", async () => {
  await withLoopDevice(async (device) => {
    await execa("blockdev", ["--setro", device]);
    await withExported(device, async (exported) => {
      await exported.role.fence({ id, force: false });
      await exported.role.release({ id, force: false });
      assert.is(isReadOnly(device), true);
    });
  });
});

withLoop("who has the file behind a loop device open for writing can write the device", async () => {
  await withLoopDevice(async (device, file) => {
    await withExported(device, async (exported) => {
      const writer = await startWriter(file);
      try {
        const { message } = await refusalOf(exported.role.fence({ id, force: false }));
        assert.match(message, `process ${writer.pid}`);
        assert.is(isReadOnly(device), false);
      } finally {
        await writer.stop();
      }
    });
  });
});

withLoop("danger: a write to the device, and one to the file behind it", async () => {
  await withLoopDevice(async (device, file) => {
    await withExported(device, async (exported) => {
      const writer = openSync(device, "r+");
      try {
        // What is still to be written back was written before the fence.
        writeSync(writer, Buffer.alloc(MiB, "z"), 0, MiB, 0);
        await exported.role.fence({ id, force: true });
        fsyncSync(writer);
        assert.is(await exported.danger(), "none");
        await execa("blockdev", ["--setrw", device]);
        assert.is(canWrite(writer), true);
        assert.match(await exported.danger(), /[1-9]\d* bytes were written to or discarded from it/);
      } finally {
        closeSync(writer);
      }
    });
    await withExported(device, async (exported) => {
      await exported.role.fence({ id, force: false });
      assert.is(await exported.danger(), "none");
      const descriptor = openSync(file, "r+");
      writeSync(descriptor, Buffer.alloc(512), 0, 512, 0);
      closeSync(descriptor);
      const danger = await exported.danger();
      assert.ok(danger.includes(`${file} behind it: its modification time changed`), danger);
    });
  });
});

withLoop(
  "a device after a restart of the machine: ensure() makes it read-only before tgtd starts",
  async () => {
    await withLoopDevice(async (device) => {
      await withExported(device, async (exported) => {
        await exported.role.fence({ id, force: false });
        await exported.killTgtd();
        await execa("blockdev", ["--setrw", device]);
        exported.rewrite((record) => ({ ...record, bootId: "before" }));
        await exported.role.ensure({ id, force: false });
        assert.is(isReadOnly(device), true);
        await exported.role.release({ id, force: false });
        assert.is(isReadOnly(device), false);
      });
    });
  },
);

withLoop("a device's flag of another boot is not undone, nor is another device of its number", async () => {
  await withLoopDevice(async (device) => {
    await withExported(device, async (exported) => {
      await exported.role.fence({ id, force: false });
      exported.rewrite((record) => ({ ...record, stableId: "another file" }));
      assert.match(await exported.danger(), "another disk is at its path");
      assert.match((await refusalOf(exported.role.unfence({ id }))).message, "is another disk now");
      exported.rewrite((record) => ({ ...record, bootId: "before" }));
      assert.equal(await exported.role.unfence({ id }), { wasFenced: true, note: null });
      assert.is(isReadOnly(device), true);
    });
  });
});

test.run();
