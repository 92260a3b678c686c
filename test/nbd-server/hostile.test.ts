/** Clients that break the protocol, stall, vanish or flood: they harm nobody, and memory stays bounded. */
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { NbdProtocolError, NbdServer } from "../../src/nbd-server/mod.ts";
import { command, option } from "../../src/nbd-server/protocol.ts";
import { tempFolder } from "../helpers/temp.ts";
import { MemoryDevice } from "./memory-device.ts";
import { readAll } from "./hostile.ts";
import { infoData, optionBytes, RawClient, requestBytes, uint32 } from "./raw-client.ts";

interface Context {
  device: MemoryDevice;
  server: NbdServer;
  path: string;
  errors: Error[];
  counts: number[];
}

const test = suite<Context>("NBD server against hostile clients");

const mebibyte = 1024 * 1024;
const limits = { maxBytesPerConnection: 4 * mebibyte, maxRequestsPerConnection: 16 };

test.before.each(async (context) => {
  context.device = new MemoryDevice(8 * mebibyte);
  context.errors = [];
  context.counts = [];
  context.path = join(tempFolder("nbd"), "s");
  context.server = new NbdServer(context.device, {
    ...limits,
    onError: (error) => context.errors.push(error),
    onConnectionsChange: (count) => context.counts.push(count),
  });
  await context.server.listen(context.path);
});

test.after.each(async ({ server }) => {
  await server.close();
});

/** Polls `condition`, for at most a minute. */
async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`waited too long until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Works as it should: writes, reads back. */
async function assertServes(path: string): Promise<void> {
  const client = await RawClient.ready(path);
  const payload = Buffer.alloc(mebibyte, 0x5a);
  assert.is((await client.request({ type: command.write, offset: 3, payload })).error, 0);
  const { data } = await client.request({ type: command.read, offset: 3, length: mebibyte });
  assert.ok(Buffer.compare(data.subarray(8), payload) === 0);
  client.close();
}

function isDropped(client: RawClient): Promise<Buffer> {
  return client.rest();
}

const handshakeTimeoutMs = 1000;

/** A server of its own, whose clients have a second for the handshake. */
async function hurried(
  { device, errors }: Context,
  body: (path: string, server: NbdServer) => Promise<void>,
): Promise<void> {
  const path = join(tempFolder("nbd"), "s");
  const onError = (error: Error) => void errors.push(error);
  const server = new NbdServer(device, { ...limits, handshakeTimeoutMs, onError });
  await server.listen(path);
  try {
    await body(path, server);
  } finally {
    await server.close();
  }
}

test("a client that says nothing is dropped at the handshake's deadline", (context) =>
  hurried(context, async (path) => {
    const client = await RawClient.connect(path);
    assert.is((await isDropped(client)).length, 18);
    assert.instance(context.errors[0], NbdProtocolError);
  }));

test("options that trickle do not extend the handshake's deadline", (context) =>
  hurried(context, async (path) => {
    const client = await RawClient.connect(path);
    client.send(uint32(3));
    const timer = setInterval(() => client.send(optionBytes(option.list)), 20);
    assert.ok((await isDropped(client)).length > 18);
    clearInterval(timer);
  }));

test("a client past the handshake may be silent for as long as it likes", (context) =>
  hurried(context, async (path, server) => {
    const client = await RawClient.ready(path);
    await new Promise((resolve) => setTimeout(resolve, 2 * handshakeTimeoutMs));
    assert.is(server.connectionCount, 1);
    assert.is((await client.request({ type: command.read, length: 512 })).error, 0);
    client.close();
  }));

test("garbage instead of client flags, an option or a request is dropped", async ({ path, errors }) => {
  for (const prelude of [[], [uint32(3)], [uint32(3), optionBytes(option.go, infoData(""))]]) {
    const client = await RawClient.connect(path);
    client.send(...prelude, Buffer.alloc(100, 0xee));
    await isDropped(client);
  }
  assert.is(errors.length, 3);
  await assertServes(path);
});

test("a flood of options ends the connection", async ({ path, errors }) => {
  const client = await RawClient.connect(path);
  client.send(uint32(3), Buffer.concat(Array(100_000).fill(optionBytes(option.list))));
  await until("it is dropped", () => errors.length === 1);
  assert.match(errors[0].message, /too many options/);
  await isDropped(client);
  await assertServes(path);
});

test("huge lengths: a read is refused, an absurd write ends the connection", async ({ path, device }) => {
  const client = await RawClient.ready(path);
  assert.is((await client.request({ type: command.read, length: 0xffffffff })).error, 75);
  client.send(requestBytes({ type: command.write, length: 0xffffffff }));
  assert.is((await isDropped(client)).length, 0);
  assert.is(device.calls.length, 0);
  await assertServes(path);
});

test("a client that never reads holds only its budget, and others go on", async ({ path, server }) => {
  const client = await RawClient.ready(path);
  const reads = Array.from(
    { length: 500 },
    (_, index) => requestBytes({ type: command.read, length: mebibyte, cookie: BigInt(index) }),
  );
  client.send(...reads);
  await until("its budget is used", () => server.clients()[0].bytesInFlight === limits.maxBytesPerConnection);
  await assertServes(path);
  const [held] = server.clients();
  assert.is(held.bytesInFlight, limits.maxBytesPerConnection);
  assert.ok(held.requestsInFlight <= 4);
  // As soon as it reads, it gets everything it asked for.
  const cookies = new Set<bigint>();
  for (let index = 0; index < reads.length; index++) cookies.add((await client.reply()).cookie);
  assert.is(cookies.size, reads.length);
  await until("everything is released", () => server.clients()[0].bytesInFlight === 0);
  assert.is(server.clients()[0].requestsInFlight, 0);
  client.close();
});

test("a client that never reads and then vanishes is noticed", async ({ path, server }) => {
  const client = await RawClient.ready(path);
  client.send(...Array(100).fill(requestBytes({ type: command.read, length: mebibyte })));
  await until("its budget is used", () => server.clients()[0].bytesInFlight === limits.maxBytesPerConnection);
  client.close();
  await until("it is gone", () => server.connectionCount === 0);
});

test("requests without data are bounded by their number", async ({ path, server, device }) => {
  device.before = ({ method }) => method === "flush" ? new Promise(() => {}) : undefined;
  const client = await RawClient.ready(path);
  client.send(Buffer.concat(Array(1000).fill(requestBytes({ type: command.flush }))));
  await until("its requests are used", () => server.clients()[0].requestsInFlight === 16);
  await assertServes(path);
  assert.is(device.calls.filter(({ method }) => method === "flush").length, 16);
  client.close();
});

test("writes wait for room before their payload is received", async ({ path, server, device }) => {
  let release = () => {};
  const held = new Promise<void>((resolve) => (release = resolve));
  device.before = () => held;
  const client = await RawClient.ready(path);
  const payload = Buffer.alloc(mebibyte, 1);
  client.send(...Array.from({ length: 8 }, () => requestBytes({ type: command.write, payload })));
  await until("four are executing", () => device.calls.length === 4);
  assert.is(server.clients()[0].bytesInFlight, 4 * mebibyte);
  release();
  for (let index = 0; index < 8; index++) assert.is((await client.reply()).error, 0);
  client.close();
});

test("one request larger than the whole budget is served, alone", async ({ path }) => {
  const client = await RawClient.ready(path);
  client.send(requestBytes({ type: command.read, length: 8 * mebibyte }));
  await readAll(client, 0, 8 * mebibyte);
  client.close();
});

test("half a request, then gone: nothing is executed", async ({ path, server, device }) => {
  const whole = requestBytes({ type: command.write, payload: Buffer.alloc(100_000) });
  for (const length of [1, 27, 28, 60_000, whole.length - 1]) {
    const client = await RawClient.ready(path);
    client.send(whole.subarray(0, length));
    client.socket.end();
    assert.is((await client.rest()).length, 0);
  }
  await until("all are gone", () => server.connectionCount === 0);
  assert.is(device.calls.length, 0);
  assert.is(server.clients().length, 0);
});

test("gone with requests in flight: their work ends without harm", async ({ path, server, device }) => {
  let release = () => {};
  const held = new Promise<void>((resolve) => (release = resolve));
  device.before = () => held;
  const client = await RawClient.ready(path);
  client.send(requestBytes({ type: command.write, payload: Buffer.alloc(512, 7) }));
  client.send(requestBytes({ type: command.read, length: mebibyte }));
  await until("both are executing", () => device.calls.length === 2);
  client.close();
  await until("it is gone", () => server.connectionCount === 0);
  release();
  await until("the write is done", () => device.bytes[0] === 7);
  await assertServes(path);
});

test("DISC with requests in flight: they are answered, then the connection closes", async (context) => {
  const { path, server, device } = context;
  let release = () => {};
  const held = new Promise<void>((resolve) => (release = resolve));
  device.before = () => held;
  const client = await RawClient.ready(path);
  client.send(
    requestBytes({ type: command.write, payload: Buffer.alloc(512, 7), cookie: 1n }),
    requestBytes({ type: command.read, length: 2 * mebibyte, cookie: 2n }),
    requestBytes({ type: command.disconnect }),
    Buffer.alloc(1000, 0xee),
  );
  client.socket.end();
  await until("both are executing", () => device.calls.length === 2);
  release();
  const replies = [await client.reply(), await client.reply()];
  assert.equal(replies.map(({ cookie, error }) => ({ cookie, error })), [
    { cookie: 1n, error: 0 },
    { cookie: 2n, error: 0 },
  ]);
  assert.is((await client.rest()).length, 0);
  await until("it is gone", () => server.connectionCount === 0);
});

/** A server of its own for four clients, and what it tells; `connect` makes one that is closed at the end. */
async function crowded(
  { device }: Context,
  body: (
    at: { connect(): Promise<RawClient>; path: string; server: NbdServer; told: string[] },
  ) => Promise<void>,
): Promise<void> {
  const path = join(tempFolder("nbd"), "s");
  const told: string[] = [];
  const onError = ({ message }: Error) => void told.push(message);
  const server = new NbdServer(device, { maxConnections: 4, onError });
  await server.listen(path);
  const clients: RawClient[] = [];
  const connect = async () => {
    const client = await RawClient.ready(path);
    clients.push(client);
    return client;
  };
  try {
    await body({ connect, path, server, told });
  } finally {
    for (const client of clients) client.close();
    await server.close();
  }
}

async function assertRefuses(path: string): Promise<void> {
  const client = await RawClient.connect(path);
  try {
    assert.is((await client.rest()).length, 0);
  } finally {
    client.close();
  }
}

const refused = "clients are refused: no more may be connected";

test("connections beyond the limit are refused, and accepted again when there is room", (context) =>
  crowded(context, async ({ connect, path, server, told }) => {
    const [last] = [await connect(), await connect(), await connect(), await connect()];
    for (let round = 0; round < 2; round++) await assertRefuses(path);
    assert.equal(told, [refused], "once");
    last.close();
    await until("there is room", () => server.connectionCount === 3);
    await assertServes(path);
  }));

test("that clients are refused is told once while they come and go, and again after half of them were gone", (context) =>
  crowded(context, async ({ connect, path, server, told }) => {
    const clients = [await connect(), await connect(), await connect(), await connect()];
    const leave = async (count: number) => {
      for (const client of clients.splice(0, count)) client.close();
      await until("they are gone", () => server.connectionCount === clients.length);
    };
    await assertRefuses(path);
    for (let round = 0; round < 3; round++) {
      await leave(1);
      clients.push(await connect());
      await assertRefuses(path);
    }
    assert.equal(told, [refused], "one at the limit came and went");
    await leave(2);
    clients.push(await connect(), await connect());
    assert.equal(told, [refused], "nobody was refused");
    for (let round = 0; round < 2; round++) await assertRefuses(path);
    assert.equal(told, [refused, refused], "half of them were gone");
  }));

test("onConnectionsChange tells each change of the number of clients", async ({ path, server, counts }) => {
  const idle = await RawClient.connect(path);
  const first = await RawClient.ready(path);
  const second = await RawClient.ready(path);
  assert.is(server.connectionCount, 2);
  first.disconnect();
  await first.rest();
  await until("one is left", () => server.connectionCount === 1);
  second.close();
  await until("none is left", () => server.connectionCount === 0);
  assert.equal(counts, [1, 2, 1, 0]);
  idle.close();
});

test.run();
