/** As many hostile clients as there are places, which hold all they can: there is room for who behaves well. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { command } from "../../src/nbd-server/protocol.ts";
import { until } from "../helpers/until.ts";
import { diskBytes, hostileBytes, hostileTo, mebibyte, readAll } from "./hostile.ts";
import { RawClient, requestBytes } from "./raw-client.ts";

const test = suite("NBD server in a crowd");
const options = { maxBytes: 128 * mebibyte, maxConnections: 64, maxRequestsPerConnection: 16 };
const check = hostileTo(test, options);
/** One place is the bystander's, one is for who comes later. */
const hostileClients = 62;

function crowd(path: string, sent: Uint8Array): Promise<RawClient[]> {
  return Promise.all(Array.from({ length: hostileClients }, async () => {
    const client = await RawClient.ready(path);
    client.send(sent);
    return client;
  }));
}

/** The newcomer is served as if nobody else were there; the hostile ones go on holding what they have. */
async function assertRoom(path: string): Promise<void> {
  const client = await RawClient.ready(path);
  const payload = Buffer.alloc(hostileBytes, 0x3c);
  for (let round = 0; round < 10; round++) {
    assert.is((await client.request({ type: command.read, offset: round * 512, length: 512 })).error, 0);
  }
  client.send(requestBytes({ type: command.read, length: diskBytes }));
  assert.is((await readAll(client, 0, diskBytes)).length, diskBytes);
  assert.is((await client.request({ type: command.write, payload: payload.subarray(0, mebibyte) })).error, 0);
  client.close();
}

const largeRead = requestBytes({ type: command.read, length: hostileBytes });

check("nobody reads its replies", async ({ path, server, bystander }) => {
  const clients = await crowd(path, Buffer.concat(Array(50).fill(largeRead)));
  await until(() => server.committedBytes > 0.9 * options.maxBytes, "nearly all is held");
  await assertRoom(path);
  await bystander.goesOn();
  assert.ok(server.committedBytes <= options.maxBytes, `${server.committedBytes}`);
  for (const client of clients) client.close();
  await until(
    () => server.connectionCount === 1 && server.committedBytes <= 2 * mebibyte,
    "all of it comes back",
  );
});

check("everybody announces a large write and sends a byte of it", async ({ path, server, bystander }) => {
  const announced = requestBytes({ type: command.write, length: hostileBytes });
  const clients = await crowd(path, Buffer.concat([announced, Buffer.alloc(1)]));
  await until(
    () => server.clients().filter(({ bytesInFlight }) => bytesInFlight > 0).length >= hostileClients,
    "all came",
  );
  await assertRoom(path);
  await bystander.goesOn();
  for (const client of clients) client.close();
});

check(
  "everybody's writes wait in the device, as before the hand-off; others read",
  async ({ path, server, device }) => {
    const isHostile = ({ method, offset }: { method: string; offset: number }) =>
      method === "write" && offset >= mebibyte && offset < hostileBytes;
    device.before = (call) => isHostile(call) ? new Promise(() => {}) : undefined;
    const waiting = requestBytes({ type: command.write, offset: mebibyte, payload: Buffer.alloc(mebibyte) });
    const clients = await crowd(path, Buffer.concat([waiting, waiting, waiting, waiting]));
    await until(() => device.calls.filter(isHostile).length >= hostileClients, "they wait");
    await assertRoom(path);
    assert.ok(server.committedBytes <= options.maxBytes, `${server.committedBytes}`);
    for (const client of clients) client.close();
    await until(() => server.connectionCount === 1, "they are gone, though they could not be read");
  },
);

check("a place is free again as soon as a client goes, hundreds of times", async ({ path, server }) => {
  const clients = await crowd(path, largeRead);
  for (let round = 0; round < 300; round++) {
    const client = await RawClient.connect(path);
    client.send(Buffer.alloc(round % 30, 0xee));
    client.close();
  }
  await until(() => server.connectionCount === hostileClients + 1, "they are gone");
  let isServed = false;
  while (!isServed) isServed = await assertRoom(path).then(() => true, () => false);
  for (const client of clients) client.close();
});

check("beyond the last place: disconnected without a word, in any number", async ({ path }) => {
  const clients = await crowd(path, largeRead);
  const last = await RawClient.ready(path);
  await Promise.all(Array.from({ length: 200 }, async () => {
    const client = await RawClient.connect(path);
    assert.is((await client.rest()).length, 0);
  }));
  for (const client of [last, ...clients]) client.close();
});

test.run();
