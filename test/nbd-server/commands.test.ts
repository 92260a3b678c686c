/** What the server does with each command and answers to it, byte for byte, over a real socket. */
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { NbdServer } from "../../src/nbd-server/mod.ts";
import { chunkType, command, commandFlag, maxPayloadBytes } from "../../src/nbd-server/protocol.ts";
import { nbdError } from "../../src/nbd-server/wire-errors.ts";
import { tempFolder } from "../helpers/temp.ts";
import { coded, MemoryDevice, residency } from "./memory-device.ts";
import { RawClient, type RawReply, requestBytes } from "./raw-client.ts";

interface Context {
  device: MemoryDevice;
  server: NbdServer;
  path: string;
  errors: Error[];
  /** Structured replies, no contexts. */
  client: RawClient;
}

const test = suite<Context>("NBD commands");

test.before.each(async (context) => {
  context.device = new MemoryDevice(1024 * 1024);
  context.errors = [];
  context.path = join(tempFolder("nbd"), "s");
  context.server = new NbdServer(context.device, { onError: (error) => context.errors.push(error) });
  await context.server.listen(context.path);
  context.client = await RawClient.ready(context.path);
});

test.after.each(async ({ server, client }) => {
  client.close();
  await server.close();
});

/** Of an error chunk. */
function messageIn(reply: RawReply): string {
  return reply.data.toString("utf8", 6, 6 + reply.data.readUInt16BE(4));
}

const done = 1;

test("READ gives the pieces of the device as one chunk, offset first", async ({ device, client }) => {
  device.bytes.forEach((_, index) => (device.bytes[index] = index * 7));
  device.pieceBytes = 100;
  const reply = await client.request({
    type: command.read,
    offset: 333,
    length: 4567,
    cookie: 2n ** 64n - 2n,
  });
  assert.is(reply.type, chunkType.offsetData);
  assert.is(reply.flags, done);
  assert.is(reply.cookie, 2n ** 64n - 2n);
  assert.is(reply.data.readBigUInt64BE(0), 333n);
  assert.ok(Buffer.compare(reply.data.subarray(8), device.bytes.subarray(333, 333 + 4567)) === 0);
});

test("READ with DF is one chunk however the device cuts it", async ({ device, client }) => {
  device.pieceBytes = 512;
  const request = { type: command.read, flags: commandFlag.df, length: 65536 };
  const reply = await client.request(request);
  assert.is(reply.data.length, 8 + 65536);
  assert.is(reply.flags, done);
});

test("READ without structured replies is a simple reply and the data", async ({ device, path }) => {
  device.bytes.fill(9, 100, 200);
  const client = await RawClient.ready(path, { structured: false });
  const reply = await client.request({ type: command.read, offset: 100, length: 100 }, 100);
  assert.is(reply.kind, "simple");
  assert.ok(reply.data.every((byte) => byte === 9));
  client.close();
});

test("WRITE stores, and FUA reaches the device", async ({ device, client }) => {
  const payload = Buffer.alloc(200_000, "abc");
  const plainWrite = await client.request({ type: command.write, offset: 1, payload, cookie: 5n });
  assert.equal([plainWrite.kind, plainWrite.error, plainWrite.cookie], ["simple", 0, 5n]);
  assert.ok(Buffer.compare(device.bytes.subarray(1, 200_001), payload) === 0);
  await client.request({ type: command.write, flags: commandFlag.fua, offset: 1, payload });
  assert.equal(device.calls.map(({ fua }) => fua), [false, true]);
});

test("FLUSH, TRIM, CACHE, WRITE_ZEROES reach the device with range and flags", async ({ device, client }) => {
  const { noHole, fastZero, fua } = commandFlag;
  const range = { offset: 4096, length: 8192 };
  await client.request({ type: command.flush });
  await client.request({ type: command.trim, ...range });
  await client.request({ type: command.trim, ...range, flags: fua });
  await client.request({ type: command.cache, ...range });
  await client.request({ type: command.writeZeroes, ...range });
  await client.request({ type: command.writeZeroes, ...range, flags: noHole | fastZero | fua });
  assert.equal(device.calls, [
    { method: "flush", offset: 0, length: 0 },
    { method: "trim", ...range, fua: false },
    { method: "trim", ...range, fua: true },
    { method: "prefetch", ...range },
    { method: "writeZeroes", ...range, noHole: false, fastZero: false, fua: false },
    { method: "writeZeroes", ...range, noHole: true, fastZero: true, fua: true },
  ]);
});

test("a fast zero that would be slow is ENOTSUP", async ({ device, client }) => {
  device.isZeroingFast = false;
  const request = { type: command.writeZeroes, flags: commandFlag.fastZero, length: 4096 };
  assert.is((await client.request(request)).error, nbdError.ENOTSUP);
});

test("BLOCK_STATUS answers all selected contexts in one reply", async ({ device, path }) => {
  await device.write(8192, new Uint8Array(4096), false);
  const client = await RawClient.ready(path, { contexts: ["base:allocation", residency] });
  client.send(requestBytes({ type: command.blockStatus, offset: 4096, length: 65536 }));
  const chunks = [await client.reply(), await client.reply()];
  assert.equal(chunks.map(({ flags }) => flags), [0, done]);
  const words = chunks.map(({ data }) =>
    Array.from({ length: data.length / 4 }, (_, index) => data.readUInt32BE(4 * index))
  );
  assert.equal(words[0].slice(1), [4096, 3, 4096, 0, 57344, 3]);
  assert.equal(words[1].slice(1), [4096, 0, 4096, 1, 57344, 0]);
  assert.is.not(words[0][0], words[1][0]);
  client.close();
});

test("BLOCK_STATUS with REQ_ONE answers one extent", async ({ device, path }) => {
  await device.write(8192, new Uint8Array(4096), false);
  const client = await RawClient.ready(path, { contexts: ["base:allocation"] });
  const request = { type: command.blockStatus, flags: commandFlag.reqOne, length: 65536 };
  const { data, flags } = await client.request(request);
  assert.is(flags, done);
  assert.equal([data.length, data.readUInt32BE(4), data.readUInt32BE(8)], [12, 8192, 3]);
  assert.is(device.calls.at(-1)?.maxExtents, 1);
  client.close();
});

test("BLOCK_STATUS without a selected context is EINVAL", async ({ client }) => {
  const reply = await client.request({ type: command.blockStatus, length: 4096 });
  assert.is(reply.error, nbdError.EINVAL);
});

test("zero lengths succeed without troubling the device", async ({ device, client, path }) => {
  for (const type of [command.read, command.write, command.trim, command.cache, command.writeZeroes]) {
    const reply = await client.request({ type, length: 0, offset: 512 });
    assert.is(reply.error, 0);
    assert.is(reply.data.length, 0);
  }
  const simple = await RawClient.ready(path, { structured: false });
  assert.is((await simple.request({ type: command.read, length: 0 })).error, 0);
  assert.is(device.calls.length, 0);
  simple.close();
});

test("a refused WRITE's payload is consumed and changes nothing", async ({ device, client }) => {
  const refused: [number, Parameters<typeof requestBytes>[0]][] = [
    [nbdError.ENOSPC, { type: command.write, offset: 1024 * 1024 - 1, payload: Buffer.alloc(4096, 1) }],
    [nbdError.EINVAL, { type: command.write, flags: commandFlag.df, payload: Buffer.alloc(100_000, 1) }],
    [nbdError.EINVAL, { type: command.write, payload: Buffer.alloc(maxPayloadBytes + 1, 1) }],
  ];
  for (const [error, request] of refused) assert.is((await client.request(request)).error, error);
  assert.is(device.calls.length, 0);
  assert.is((await client.request({ type: command.read, length: 512 })).error, 0);
});

test("unknown commands and flags are EINVAL, with a message", async ({ device, client }) => {
  const unknown = await client.request({ type: 77, length: 12 });
  assert.is(unknown.error, nbdError.EINVAL);
  assert.is(messageIn(unknown), "unknown command 77");
  const flags = await client.request({ type: command.read, flags: 0x8000, length: 12 });
  assert.is(flags.error, nbdError.EINVAL);
  assert.is(device.calls.length, 0);
});

test("what the device rejects with arrives as error and message", async ({ device, client, path }) => {
  device.before = () => {
    throw coded("ENOSPC", "the disk is full: " + "ß".repeat(2000));
  };
  const write = await client.request({ type: command.write, payload: Buffer.alloc(512) });
  assert.equal([write.type, write.error, write.flags], [chunkType.error, nbdError.ENOSPC, done]);
  assert.match(messageIn(write), /^the disk is full: ß{400,}$/);
  const read = await client.request({ type: command.read, length: 512, cookie: 9n });
  assert.equal([read.type, read.error, read.cookie], [chunkType.error, nbdError.ENOSPC, 9n]);
  const simple = await RawClient.ready(path, { structured: false });
  const reply = await simple.request({ type: command.read, length: 512, cookie: 10n }, 512);
  assert.equal([reply.kind, reply.error, reply.cookie], ["simple", nbdError.ENOSPC, 10n]);
  simple.close();
});

test("a device that breaks its contract is EIO and reported, and the stream stays whole", async (context) => {
  const { device, client, errors, path } = context;
  const whole = device.read.bind(device);
  device.read = async (offset, length) => (await whole(offset, length)).slice(1);
  assert.is((await client.request({ type: command.read, length: 4096 })).error, nbdError.EIO);
  device.read = () => {
    throw new Error("thrown, not rejected");
  };
  assert.is((await client.request({ type: command.read, length: 4096 })).error, nbdError.EIO);
  const mapped = await RawClient.ready(path, { contexts: [residency] });
  for (const lengthBytes of [0, 4097, -1, 0.5]) {
    device.blockStatus = () => Promise.resolve([{ lengthBytes, flags: 0 }]);
    assert.is((await mapped.request({ type: command.blockStatus, length: 4096 })).error, nbdError.EIO);
  }
  for (const flags of [-1, 2 ** 32, NaN]) {
    device.blockStatus = () => Promise.resolve([{ lengthBytes: 4096, flags }]);
    assert.is((await mapped.request({ type: command.blockStatus, length: 4096 })).error, nbdError.EIO);
  }
  device.blockStatus = () => Promise.resolve([]);
  assert.is((await mapped.request({ type: command.blockStatus, length: 4096 })).error, nbdError.EIO);
  device.read = whole;
  assert.is((await client.request({ type: command.read, length: 4096 })).error, 0);
  assert.is(errors.length, 9);
  mapped.close();
});

test("requests run at the same time and are answered as they complete", async ({ device, client }) => {
  let release = () => {};
  const held = new Promise<void>((resolve) => (release = resolve));
  device.before = ({ offset }) => offset === 0 ? held : undefined;
  client.send(requestBytes({ type: command.read, offset: 0, length: 512, cookie: 1n }));
  client.send(requestBytes({ type: command.read, offset: 512, length: 512, cookie: 2n }));
  assert.is((await client.reply()).cookie, 2n);
  release();
  assert.is((await client.reply()).cookie, 1n);
});

test("a pipelined batch is answered whole, each cookie once", async ({ client }) => {
  const count = 300;
  const batch = Array.from({ length: count }, (_, index) =>
    requestBytes(
      index % 3 === 0
        ? {
          type: command.write,
          offset: index * 512,
          payload: Buffer.alloc(512, index),
          cookie: BigInt(index),
        }
        : { type: command.read, offset: index * 512, length: 1024, cookie: BigInt(index) },
    ));
  client.send(Buffer.concat(batch));
  const cookies = new Set<bigint>();
  for (let index = 0; index < count; index++) cookies.add((await client.reply()).cookie);
  assert.is(cookies.size, count);
});

test("two connections see each other's writes", async ({ client, path }) => {
  const other = await RawClient.ready(path);
  await client.request({ type: command.write, offset: 4096, payload: Buffer.alloc(4096, 0xab) });
  await client.request({ type: command.flush });
  const { data } = await other.request({ type: command.read, offset: 4096, length: 4096 });
  assert.ok(data.subarray(8).every((byte) => byte === 0xab));
  other.close();
});

test.run();
