/** The server's life: listening, dropping its clients, closing. */
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { LockedError } from "../../src/lib/errors.ts";
import { NbdServer } from "../../src/nbd-server/mod.ts";
import { command, option, optionReply } from "../../src/nbd-server/protocol.ts";
import { tempFolder } from "../helpers/temp.ts";
import { MemoryDevice, residency } from "./memory-device.ts";
import { infoData, optionBytes, RawClient, requestBytes, uint32 } from "./raw-client.ts";

const test = suite("NbdServer");

const newPath = () => join(tempFolder("nbd"), "s");

test("listens on a private socket and removes it", async () => {
  const path = newPath();
  const server = new NbdServer(new MemoryDevice(4096));
  await server.listen(path);
  assert.is(statSync(path).mode & 0o777, 0o600);
  await server.close();
  assert.not.ok(existsSync(path));
  await server.close();
});

test("refuses the socket of a live server", async () => {
  const path = newPath();
  const first = new NbdServer(new MemoryDevice(4096));
  await first.listen(path);
  const second = new NbdServer(new MemoryDevice(4096));
  let refusal: unknown;
  await second.listen(path).catch((error) => (refusal = error));
  assert.instance(refusal, LockedError);
  await second.close();
  (await RawClient.ready(path)).close();
  await first.close();
});

/** Clients with requests that the device never finishes, and one in the handshake. */
async function withStuckClients() {
  const path = newPath();
  const device = new MemoryDevice(4 * 1024 * 1024);
  let isStuck = true;
  let called = () => {};
  const stuck = new Promise<void>((resolve) => (called = resolve));
  device.before = () => {
    if (!isStuck) return;
    if (device.calls.length === 2) called();
    return new Promise(() => {});
  };
  const server = new NbdServer(device);
  await server.listen(path);
  const clients = [await RawClient.ready(path), await RawClient.ready(path, { structured: false })];
  for (const client of clients) client.send(requestBytes({ type: command.read, length: 65536 }));
  await stuck;
  isStuck = false;
  const shaking = await RawClient.connect(path);
  await shaking.receive(18);
  return { path, device, server, clients: [...clients, shaking] };
}

test("close: clients in the middle of a request see the end of file, not an error reply", async () => {
  const { server, clients } = await withStuckClients();
  assert.is(server.connectionCount, 2);
  await server.close();
  for (const client of clients) assert.is((await client.rest()).length, 0);
  assert.is(server.connectionCount, 0);
});

test("close: a client that does not take its replies is dropped too", async () => {
  const path = newPath();
  const server = new NbdServer(new MemoryDevice(4 * 1024 * 1024));
  await server.listen(path);
  const client = await RawClient.ready(path);
  client.send(...Array(8).fill(requestBytes({ type: command.read, length: 4 * 1024 * 1024 })));
  await client.receive(28);
  await server.close();
  client.close();
});

test("dropAll: everybody is disconnected without a reply, and may come back", async () => {
  const { path, server, clients } = await withStuckClients();
  server.dropAll();
  assert.is(server.connectionCount, 0);
  for (const client of clients) assert.is((await client.rest()).length, 0);
  const again = await RawClient.ready(path);
  assert.is((await again.request({ type: command.read, length: 512 })).error, 0);
  again.close();
  await server.close();
});

test("clients() describes those in the transmission phase", async () => {
  const path = newPath();
  const server = new NbdServer(new MemoryDevice(4096));
  await server.listen(path);
  assert.equal(server.clients(), []);
  const client = await RawClient.ready(path, { contexts: [residency] });
  const [described] = server.clients();
  assert.is(described.id, 1);
  assert.is(described.structuredReplies, true);
  assert.equal(described.metaContexts, [residency]);
  assert.equal([described.requestsInFlight, described.bytesInFlight], [0, 0]);
  assert.ok(Math.abs(described.connectedAt.getTime() - Date.now()) < 60_000);
  client.close();
  await server.close();
});

test("serves under its name and the empty one", async () => {
  const path = newPath();
  const server = new NbdServer(new MemoryDevice(4096), { exportName: "disk", description: "a disk" });
  await server.listen(path);
  for (const [name, last] of [["disk", 1], ["", 1], ["other", optionReply.errorUnknown]] as const) {
    const client = await RawClient.connect(path);
    await client.receive(18);
    client.send(uint32(3));
    const replies = await client.option(option.go, infoData(name), { mayFail: true });
    assert.is(replies.at(-1)?.type, last);
    client.close();
  }
  await server.close();
});

test("EXPORT_NAME and requests in one breath", async () => {
  const path = newPath();
  const server = new NbdServer(new MemoryDevice(4096));
  await server.listen(path);
  const client = await RawClient.connect(path);
  client.send(uint32(3), optionBytes(option.exportName), requestBytes({ type: command.read, length: 512 }));
  await client.receive(18 + 10);
  assert.is((await client.reply(512)).data.length, 512);
  client.disconnect();
  assert.is((await client.rest()).length, 0);
  await server.close();
});

test("ABORT is acknowledged, then the connection closes", async () => {
  const path = newPath();
  const server = new NbdServer(new MemoryDevice(4096));
  await server.listen(path);
  const client = await RawClient.connect(path);
  await client.receive(18);
  client.send(uint32(3));
  assert.is((await client.option(option.abort)).at(-1)?.type, optionReply.ack);
  assert.is((await client.rest()).length, 0);
  await server.close();
});

test("refuses names and descriptions that the protocol cannot carry", () => {
  const device = new MemoryDevice(4096);
  assert.throws(() => new NbdServer(device, { exportName: "ß".repeat(2049) }), RangeError);
  assert.throws(() => new NbdServer(device, { description: "x".repeat(4097) }), RangeError);
});

test.run();
