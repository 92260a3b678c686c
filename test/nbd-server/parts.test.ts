/**
 * Requests that are executed in parts, because greedy clients hold all that is to be had: the answer is the
 * same as in one go, and an error in any part is told once.
 */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { NbdServer } from "../../src/nbd-server/mod.ts";
import { command, commandFlag, maxPayloadBytes } from "../../src/nbd-server/protocol.ts";
import { tempFolder } from "../helpers/temp.ts";
import { until } from "../helpers/until.ts";
import { mebibyte, readAll } from "./hostile.ts";
import { coded, MemoryDevice } from "./memory-device.ts";
import { RawClient, type RawReply, requestBytes } from "./raw-client.ts";

const test = suite("requests in parts");

const content = randomBytes(40 * mebibyte);
const offset = 3 * mebibyte + 12_345;

/** No client may hold more than its reserve of 1 MiB. */
async function crowded(
  body: (
    at: { device: MemoryDevice; client: RawClient; server: NbdServer; errors: Error[] },
  ) => Promise<void>,
  structured = true,
): Promise<void> {
  const device = new MemoryDevice(content.length);
  device.bytes.set(content);
  const errors: Error[] = [];
  const server = new NbdServer(device, {
    maxBytes: 4 * mebibyte,
    maxConnections: 2,
    maxBytesPerConnection: mebibyte,
    onError: (error) => errors.push(error),
  });
  const path = join(tempFolder("nbd"), "s");
  await server.listen(path);
  const client = await RawClient.ready(path, { structured });
  try {
    await body({ device, client, server, errors });
    assert.ok(device.calls.every(({ length }) => length <= mebibyte), "no part is larger than 1 MiB");
    const isFree = () => server.committedBytes === server.connectionCount * mebibyte;
    await until(isFree, "nothing is held");
  } finally {
    client.close();
    await server.close();
  }
}

/** Fails in the n-th call, counted from 1. */
function failAt(device: MemoryDevice, nth: number): void {
  device.before = () => {
    if (device.calls.length === nth) throw coded("ENOSPC", "the disk is full");
  };
}

function read(length: number, flags = 0, cookie = 1n): Buffer {
  return requestBytes({ type: command.read, offset, length, flags, cookie });
}

async function brief(answer: Promise<RawReply>) {
  const { cookie, error } = await answer;
  return { cookie, error };
}

const last = mebibyte - 1 + 12_345;

test("a read: structured in several chunks, the last of them done; simple, and with DF, in one piece", async () => {
  for (const length of [mebibyte + 1, 5 * mebibyte + last, maxPayloadBytes]) {
    const expected = content.subarray(offset, offset + length);
    await crowded(async ({ client }) => {
      client.send(read(length));
      assert.ok((await readAll(client, offset, length)).equals(expected));
      client.send(read(length, commandFlag.df));
      const whole = await client.reply();
      assert.equal([whole.flags, whole.error, whole.data.length], [1, 0, 8 + length]);
      assert.ok(whole.data.subarray(8).equals(expected));
    });
    await crowded(async ({ client }) => {
      const { error, data } = await client.request({ type: command.read, offset, length }, length);
      assert.is(error, 0);
      assert.ok(data.equals(expected));
    }, false);
  }
});

test("a write: every byte is where it belongs, FUA goes with each part, one reply", async () => {
  const payload = randomBytes(maxPayloadBytes);
  await crowded(async ({ client, device }) => {
    const answer = client.request({
      type: command.write,
      flags: commandFlag.fua,
      offset,
      payload,
      cookie: 9n,
    });
    assert.equal(await brief(answer), { cookie: 9n, error: 0 });
    assert.ok(device.calls.every(({ fua }) => fua));
    assert.is(device.calls.reduce((sum, call) => sum + call.length, 0), payload.length);
    assert.ok(payload.equals(device.bytes.subarray(offset, offset + payload.length)));
    assert.ok(content.subarray(0, offset).equals(device.bytes.subarray(0, offset)));
    const end = offset + payload.length;
    assert.ok(content.subarray(end).equals(device.bytes.subarray(end)));
    assert.equal(await brief(client.request({ type: command.flush, cookie: 10n })), {
      cookie: 10n,
      error: 0,
    });
  });
});

test("a part of a write that fails is told once, after the payload; what follows is not written", async () => {
  for (const nth of [1, 3, 6]) {
    await crowded(async ({ client, device }) => {
      failAt(device, nth);
      const payload = Buffer.alloc(5 * mebibyte, 7);
      const answer = client.request({ type: command.write, offset, payload, cookie: 9n });
      assert.equal(await brief(answer), { cookie: 9n, error: 28 });
      assert.is(device.calls.length, nth);
      device.before = () => {};
      assert.equal(await brief(client.request({ type: command.write, payload: payload.subarray(0, 100) })), {
        cookie: 1n,
        error: 0,
      });
    });
  }
});

test("a part of a read that fails: an error chunk ends the reply, where there can be one", async () => {
  for (const nth of [1, 3, 6]) {
    await crowded(async ({ client, device }) => {
      failAt(device, nth);
      client.send(read(5 * mebibyte));
      for (let chunk = 1; chunk < nth; chunk++) {
        const { flags, error } = await client.reply();
        assert.equal([flags, error], [0, 0]);
      }
      const { flags, error, cookie } = await client.reply();
      assert.equal([flags, error, cookie], [1, 28, 1n]);
      assert.is(device.calls.length, nth);
      device.before = () => {};
      client.send(read(2 * mebibyte));
      await readAll(client, offset, 2 * mebibyte);
    });
  }
});

test("a simple reply, or one with DF, cannot tell an error half-way: the connection ends", async () => {
  for (const [structured, flags] of [[false, 0], [true, commandFlag.df]] as const) {
    await crowded(async ({ client, device, errors }) => {
      failAt(device, 1);
      assert.is(
        (await client.request({ type: command.read, offset, length: 5 * mebibyte, flags })).error,
        28,
      );
      device.calls.length = 0;
      failAt(device, 3);
      client.send(read(5 * mebibyte, flags));
      const received = await client.rest();
      assert.ok(received.length < 3 * mebibyte);
      assert.match(errors[0].message, "failed half-way: the disk is full");
    }, structured);
  }
});

test("a part is asked of the device when the one before was taken; others wait until all are", async () => {
  await crowded(async ({ client, device, server }) => {
    client.send(read(16 * mebibyte), read(512, 0, 2n));
    await client.receive(20);
    assert.ok(device.calls.length < 4, `${device.calls.length} parts for a client that does not read`);
    assert.ok(server.clients()[0].bytesInFlight <= mebibyte);
    // 17 chunks with 20 bytes of header, of which the first is received, and 8 of offset.
    await client.receive(16 * mebibyte + 16 * 20 + 17 * 8);
    assert.is((await client.reply()).cookie, 2n);
  });
});

test("parts of a read in one piece are sent in order, whichever the device would have ready first", async () => {
  const device = new MemoryDevice(content.length);
  device.bytes.set(content);
  // Room for several parts at once; each but the last one takes longer than the one after it.
  const server = new NbdServer(device, {
    maxBytes: 16 * mebibyte,
    maxConnections: 2,
    maxBytesPerConnection: 4 * mebibyte,
  });
  let calls = 0;
  device.before = async () => {
    for (let turns = calls++ % 2 === 0 ? 2000 : 0; turns > 0; turns--) await new Promise(setImmediate);
  };
  const path = join(tempFolder("nbd"), "s");
  await server.listen(path);
  const client = await RawClient.ready(path, { structured: false });
  try {
    const length = 8 * mebibyte;
    const { error, data } = await client.request({ type: command.read, offset, length }, length);
    assert.is(error, 0);
    assert.ok(data.equals(content.subarray(offset, offset + length)));
    assert.ok(calls >= 8, "it was divided");
  } finally {
    client.close();
    await server.close();
  }
});

test.run();
