/** Clients that misbehave with their requests: the right error on the wire, or dropped where there is none. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { command, commandFlag, magic, maxPayloadBytes } from "../../src/nbd-server/protocol.ts";
import { until } from "../helpers/until.ts";
import { diskBytes, hostileTo, limits, mebibyte } from "./hostile.ts";
import { RawClient, type RawRequest, requestBytes } from "./raw-client.ts";

const test = suite("NBD requests of hostile clients");
const check = hostileTo(test);

const [EINVAL, ENOSPC, EOVERFLOW] = [22, 28, 75];
const { read, write, flush, trim, cache, writeZeroes, blockStatus } = command;
const most = 0xffffffff;
const end = 2n ** 64n - 1n;

const refused: [string, RawRequest, number][] = [
  ["a read past the end", { type: read, offset: diskBytes, length: 1 }, EINVAL],
  ["a read across the end", { type: read, offset: diskBytes - 1, length: 2 }, EINVAL],
  ["a read whose end is 2^64", { type: read, offset: end, length: 1 }, EINVAL],
  ["a read whose end overflows 64 bits", { type: read, offset: end, length: 4096 }, EINVAL],
  ["a read at 2^63", { type: read, offset: 2n ** 63n, length: 1 }, EINVAL],
  ["a read just beyond the exact numbers", { type: read, offset: 2n ** 53n + 1n, length: 1 }, EINVAL],
  ["a read of 4 GiB", { type: read, length: most }, EOVERFLOW],
  ["a read one byte too long", { type: read, length: maxPayloadBytes + 1 }, EOVERFLOW],
  ["an empty read past the end", { type: read, offset: diskBytes + 1, length: 0 }, EINVAL],
  ["a write past the end", { type: write, offset: diskBytes, payload: Buffer.alloc(512) }, ENOSPC],
  ["a write whose end overflows", { type: write, offset: end, payload: Buffer.alloc(512) }, ENOSPC],
  ["a write too long", { type: write, payload: Buffer.alloc(maxPayloadBytes + 1) }, EINVAL],
  ["zeroes past the end", { type: writeZeroes, offset: diskBytes - 1, length: 2 }, ENOSPC],
  ["zeroes of 4 GiB", { type: writeZeroes, length: most }, ENOSPC],
  ["a trim of 4 GiB", { type: trim, length: most }, EINVAL],
  ["a trim whose end overflows", { type: trim, offset: end, length: most }, EINVAL],
  ["a prefetch of 4 GiB", { type: cache, length: most }, EOVERFLOW],
  ["block status without a context", { type: blockStatus, length: 512 }, EINVAL],
  ["a flush with a length", { type: flush, length: 512 }, EINVAL],
  ["a flush with an offset", { type: flush, offset: 512 }, EINVAL],
  ["the command after the last", { type: 8, length: 512 }, EINVAL],
  ["command 65,535", { type: 0xffff, offset: end, length: most }, EINVAL],
  ["every flag", { type: read, flags: 0xffff, length: 512 }, EINVAL],
  ["a flag of another command", { type: write, flags: commandFlag.df, payload: Buffer.alloc(512) }, EINVAL],
  ["an extended header's payload flag", { type: write, flags: 1 << 5, payload: Buffer.alloc(512) }, EINVAL],
];

check(
  "what cannot be done is refused with its error, and the device never sees it",
  async ({ path, device }) => {
    for (const structured of [true, false]) {
      const client = await RawClient.ready(path, { structured });
      for (const [index, [what, request, error]] of refused.entries()) {
        const cookie = end - BigInt(index);
        const answer = await client.request({ ...request, cookie });
        const isPlain = !structured && request.type === read && error === EOVERFLOW;
        assert.equal([answer.cookie, answer.error], [cookie, isPlain ? EINVAL : error], what);
      }
      assert.is((await client.request({ type: read, length: 512 }, 512)).error, 0, "it goes on");
      client.close();
    }
    const foreign = device.calls.filter(({ offset, length }) => offset < diskBytes / 2 && length !== 512);
    assert.is(foreign.length, 0);
  },
);

check("a structured-reply flag without structured replies is refused", async ({ path }) => {
  const client = await RawClient.ready(path, { structured: false });
  assert.is((await client.request({ type: read, flags: commandFlag.df, length: 512 })).error, EINVAL);
  assert.is((await client.request({ type: blockStatus, length: 512 })).error, EINVAL);
  client.close();
});

const dropped: [string, Buffer][] = [
  ["garbage", Buffer.alloc(28, 0xee)],
  ["a reply", Buffer.concat([uint32(magic.simpleReply), Buffer.alloc(24)])],
  ["a structured reply", Buffer.concat([uint32(magic.structuredReply), Buffer.alloc(24)])],
  ["an extended request", Buffer.concat([uint32(0x21e41c71), Buffer.alloc(28)])],
  ["a request a byte late", Buffer.concat([Buffer.alloc(1), requestBytes({ type: read, length: 512 })])],
  ["a write of 4 GiB", requestBytes({ type: write, length: most })],
  ["a write one byte longer than is skipped", requestBytes({ type: write, length: 2 * maxPayloadBytes + 1 })],
];

check("what leaves no common ground ends the connection, without an answer", async ({ path, errors }) => {
  for (const [what, bytes] of dropped) {
    const client = await RawClient.ready(path);
    client.send(bytes);
    assert.is((await client.rest()).length, 0, what);
    assert.match(errors.at(-1)!.message, "NBD client dropped", what);
  }
  assert.is(errors.length, dropped.length);
});

check("the same cookie for everything: each request has its answer", async ({ path }) => {
  const client = await RawClient.ready(path);
  const count = 100;
  for (let index = 0; index < count; index++) {
    client.send(requestBytes({ type: read, length: 512 + index, cookie: 7n }));
  }
  const lengths = new Set<number>();
  for (let index = 0; index < count; index++) {
    const { cookie, error, data } = await client.reply();
    assert.equal([cookie, error], [7n, 0]);
    lengths.add(data.length - 8);
  }
  assert.is(lengths.size, count);
  client.close();
});

check(
  "requests after DISC are not executed, however many; what came before is answered",
  async ({ path, device }) => {
    const held = Promise.withResolvers<void>();
    device.before = ({ method, offset }) => method === "read" && offset === 0 ? held.promise : undefined;
    const client = await RawClient.ready(path);
    client.send(
      requestBytes({ type: read, length: 512, cookie: 1n }),
      requestBytes({ type: command.disconnect, flags: 0xffff, offset: end, length: most }),
    );
    const late = requestBytes({ type: write, payload: Buffer.alloc(4096, 1) });
    for (let count = 0; count < 1000; count++) client.send(late);
    // All of it is taken, and thrown away.
    await until(() => client.socket.writableLength === 0, "everything is sent");
    held.resolve();
    assert.is((await client.reply()).cookie, 1n);
    assert.is((await client.rest()).length, 0);
    assert.is(device.bytes[0], 0);
  },
);

check(
  "a payload that comes byte by byte, or never: nobody else waits for it",
  async ({ path, server, bystander }) => {
    const payload = Buffer.alloc(3 * mebibyte, 9);
    const slow = await RawClient.ready(path);
    slow.send(requestBytes({ type: write, length: payload.length }));
    for (let at = 0; at < 200; at++) {
      slow.send(payload.subarray(at, at + 1));
      if (at % 50 === 0) await bystander.goesOn();
    }
    const never = await RawClient.ready(path);
    never.send(requestBytes({ type: write, length: payload.length }));
    await bystander.goesOn();
    assert.ok(server.clients().every(({ bytesInFlight }) => bytesInFlight <= limits.maxBytesPerConnection));
    slow.send(payload.subarray(200));
    assert.is((await slow.reply()).error, 0);
    slow.close();
    never.close();
  },
);

check(
  "thousands of tiny requests of every kind, and no reply is read",
  async ({ path, server, bystander, device }) => {
    const client = await RawClient.ready(path, { contexts: ["base:allocation"] });
    const kinds: RawRequest[] = [
      { type: read, length: 1 },
      { type: write, payload: Buffer.alloc(1) },
      { type: flush },
      { type: trim, length: 1 },
      { type: cache, length: 1 },
      { type: writeZeroes, length: 1 },
      { type: blockStatus, length: 1 },
      { type: 0x7fff, length: 1 },
      { type: read, length: 0 },
    ];
    const burst = Buffer.concat(kinds.map(requestBytes));
    client.send(Buffer.concat(Array(20_000).fill(burst)));
    await until(() => client.socket.writableLength > 0, "the socket is full");
    await bystander.goesOn(10);
    for (const { requestsInFlight } of server.clients()) {
      assert.ok(requestsInFlight <= limits.maxRequestsPerConnection);
    }
    const called = device.calls.length;
    assert.ok(called < 100_000, `${called} calls for a client that reads nothing`);
    client.close();
  },
);

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

test.run();
