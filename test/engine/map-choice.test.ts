/** Which map counts when an engine starts: on files that were left by an engine before it. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { indexOffset } from "../../src/engine/map-layout.ts";
import { planes } from "../../src/engine/residency.ts";
import { LiveMapError, ResidencyStore, SyncFailedError } from "../../src/engine/residency-store.ts";
import { rejection } from "../helpers/rejection.ts";
import { CrashFile } from "./crash-file.ts";

const test = suite("map choice");
const identity = { sizeBytes: 1024 * 4096, blockBytes: 4096, volumeId: "v", bootId: "b" };

/** Five blocks are flushed; two more are only acknowledged. */
async function left(syncFails = false) {
  const files = { durable: new CrashFile(), live: new CrashFile() };
  const store = await ResidencyStore.create(files, { ...identity, localZero: true });
  await store.activate();
  store.mark(0, 5, planes.written);
  await store.checkpoint(() => Promise.resolve());
  store.mark(7, 2, planes.written);
  const sync = () => syncFails ? Promise.reject(new Error("EIO")) : new Promise<void>(() => {});
  void store.checkpoint(sync).catch(() => {});
  await new Promise<void>((resolve) => setImmediate(resolve));
  return files;
}

const openWith = async (files: Awaited<ReturnType<typeof left>>, bootId = "b", mayLose = false) =>
  (await ResidencyStore.open(files, { ...identity, bootId }, mayLose)).map.writtenCount;

test("an engine that was killed left its live map: that counts", async () => {
  assert.is(await openWith(await left()), 7);
  assert.is(await openWith(await left(), "later"), 5, "after a restart of the machine only what was flushed");
});

test("a sync of the disk failed: the next engine trusts what was flushed, by force or after a restart", async () => {
  const error = await rejection(openWith(await left(true)), SyncFailedError);
  assert.match(error.message, /failed to store what was written/);
  assert.is(await openWith(await left(true), "b", true), 5);
  assert.is(await openWith(await left(true), "later"), 5);
  // By force once; then that is settled.
  const files = await left(true);
  await openWith(files, "b", true);
  assert.is(await openWith(files), 5);
});

test("a live map that is missing, or is not its own, is a loss unless the machine was restarted", async () => {
  const { live: other } = await left();
  for (const live of [new CrashFile(), new CrashFile(other.bytes)]) {
    const { durable } = await left();
    const error = await rejection(openWith({ durable, live }), LiveMapError);
    assert.match(error.message, /is missing/);
    assert.is(error.isMissing, true);
    assert.is(await openWith({ durable, live }, "later"), 5);
  }
});

test("a live map that was cut short or emptied is not taken for one in which nothing was written", async () => {
  for (
    const damage of [
      (bytes: Uint8Array) => bytes.slice(0, indexOffset),
      (bytes: Uint8Array) => bytes.slice().fill(0, indexOffset),
    ]
  ) {
    const files = await left();
    const live = () => new CrashFile(damage(files.live.bytes));
    const error = await rejection(openWith({ durable: files.durable, live: live() }), LiveMapError);
    assert.match(error.message, /it lacks what the durable one has/);
    assert.is(error.isMissing, false);
    assert.is(await openWith({ durable: files.durable, live: live() }, "b", true), 5);
  }
});

test.run();
