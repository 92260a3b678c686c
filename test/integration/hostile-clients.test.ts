/**
 * The engine under 63 hostile NBD clients that hold all they can: its memory stays within a stated bound, and a
 * well-behaved client reads and writes what is right, in small requests and in the largest.
 */
import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { command, maxPayloadBytes } from "../../src/nbd-server/protocol.ts";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { Dlsm } from "../helpers/dlsm.ts";
import { peakBytes } from "../helpers/memory.ts";
import { needing } from "../helpers/needs.ts";
import { pidsOf } from "../helpers/processes.ts";
import { metaContexts } from "../../src/engine/block-status.ts";
import { RawClient, type RawRequest, requestBytes } from "../nbd-server/raw-client.ts";
import { NbdClient } from "./nbd-client.ts";

const test = suite("the engine under hostile clients");
const withTgtd = needing(test, ["tgtd"]);

/**
 * What the process may have at its peak: about 110 MiB without any client, 256 MiB that all clients together may
 * hold, 80 MiB of fetches, and what the collector has not taken back yet.
 */
const maxPeakBytes = 640 * MiB;
const diskMiB = 128;
/** The engine takes 64. */
const hostileClients = 63;

/** What a hostile client sends; it never reads an answer. */
type Attack = (client: RawClient, number: number) => void;

const payload = Buffer.alloc(MiB, 0x66);
const lower = (diskMiB / 2) * MiB;

/** The lower half is theirs. */
function placeOf(number: number): number {
  return (number % 32) * MiB;
}

function send(client: RawClient, request: RawRequest): void {
  client.send(requestBytes(request));
}

function writeOf(client: RawClient, offset: number, bytes: number, sentBytes = bytes): void {
  send(client, { type: command.write, offset, length: bytes });
  for (let left = sentBytes; left > 0; left -= payload.length) client.send(payload.subarray(0, left));
}

const largeReads: Attack = (client, number) => {
  for (let count = 0; count < 200; count++) {
    send(client, { type: command.read, offset: placeOf(number), length: maxPayloadBytes });
  }
};
/** Each from a fetch of its own, which is far larger. */
const smallReads: Attack = (client, number) => {
  for (let count = 0; count < 500; count++) {
    send(client, { type: command.read, offset: (number * 500 + count) * 65536 % lower, length: 512 });
  }
};
const largeWrites: Attack = (client, number) => {
  for (let count = 0; count < 4; count++) writeOf(client, placeOf(number), maxPayloadBytes);
};
const smallWrites: Attack = (client, number) => {
  for (let count = 0; count < 2000; count++) writeOf(client, (number * 2000 + count) * 4096 % lower, 3000);
};
const writesWithoutPayload: Attack = (client, number) => writeOf(client, placeOf(number), maxPayloadBytes, 1);
const blockStatus: Attack = (client) => {
  for (let count = 0; count < 200; count++) {
    send(client, { type: command.blockStatus, length: diskMiB * MiB });
  }
};
const prefetches: Attack = (client, number) => {
  for (let count = 0; count < 200; count++) {
    send(client, { type: command.cache, offset: placeOf(number), length: maxPayloadBytes });
  }
};
const attacks = [
  largeReads,
  smallReads,
  largeWrites,
  smallWrites,
  writesWithoutPayload,
  blockStatus,
  prefetches,
];

async function attack(socket: string): Promise<RawClient[]> {
  return await Promise.all(Array.from({ length: hostileClients }, async (_, number) => {
    const client = await place(socket);
    attacks[number % attacks.length](client, number);
    return client;
  }));
}

/** The places of those who went are free some time later. */
async function place(socket: string): Promise<RawClient> {
  const deadline = performance.now() + 60_000;
  for (;;) {
    try {
      return await RawClient.ready(socket, { contexts: metaContexts });
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await sleep(50);
    }
  }
}

function checkPeak(pid: number, when: string): void {
  const bytes = peakBytes(pid);
  assert.ok(bytes < maxPeakBytes, `${when}: ${Math.round(bytes / MiB)} MiB`);
}

withTgtd("memory is bounded, and who behaves well is served, before the hand-off and after it", async () => {
  const dlsm = new Dlsm();
  try {
    const [source, destination] = [dlsm.path("src.img"), dlsm.path("dst.img")];
    makeDisk(source, diskMiB, Array.from({ length: diskMiB }, (_, index) => index));
    const content = readFileSync(source);
    const options = ["--handoff", "manual", "--activate", "explicit", "--bwlimit", "1MiB/s"];
    const { socket, id } = await dlsm.migrateDetached(source, destination, options);
    const [pid] = pidsOf(dlsm, "engine");
    checkPeak(pid, "without clients");

    const good = await NbdClient.connect(socket);
    const reads = async (offset: number, length: number, expected = content) => {
      const data = await good.read(offset, length);
      assert.ok(data.equals(expected.subarray(offset, offset + length)), `${length} bytes at ${offset}`);
    };
    let hostile = await attack(socket);
    for (let round = 0; round < 50; round++) await reads(lower + round * 70_000, 4096 + round);
    await reads(lower + 12_345, maxPayloadBytes);
    checkPeak(pid, "before the hand-off");
    // They go, and others come: what waits for the hand-off goes with them.
    for (const client of hostile) client.close();
    await reads(lower, MiB);
    hostile = await attack(socket);
    await reads(lower + 54_321, maxPayloadBytes);

    await dlsm.ok("activate", id);
    const model = Buffer.from(content);
    for (let round = 0; round < 50; round++) {
      const offset = lower + round * 70_000;
      const data = Buffer.alloc(4096 + round, round + 1);
      await good.write(offset, data);
      data.copy(model, offset);
      await reads(offset - 100, 5000, model);
    }
    const large = Buffer.alloc(maxPayloadBytes, 0x77);
    await good.write(lower + 7 * MiB + 1, large);
    large.copy(model, lower + 7 * MiB + 1);
    await reads(lower + 6 * MiB, maxPayloadBytes, model);
    checkPeak(pid, "after the hand-off");
    for (const client of hostile) client.close();
    await reads(lower, maxPayloadBytes, model);
    good.close();
    assert.is((await dlsm.status(id))?.phase, "active");
  } finally {
    await dlsm.close();
  }
});

test.run();
