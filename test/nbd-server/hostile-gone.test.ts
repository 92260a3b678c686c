/** Clients that go without a word, at any moment: what they left is given up, and nobody else is disturbed. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { command, option } from "../../src/nbd-server/protocol.ts";
import { until } from "../helpers/until.ts";
import { hostileTo, limits, mebibyte } from "./hostile.ts";
import { infoData, metaData, optionBytes, RawClient, requestBytes, uint32 } from "./raw-client.ts";

const test = suite("NBD clients that go");
const check = hostileTo(test);

/** What a whole conversation sends: every kind of option and request. */
const conversation = Buffer.concat([
  uint32(3),
  optionBytes(option.structuredReply),
  optionBytes(option.list),
  optionBytes(option.listMetaContext, metaData("", [])),
  optionBytes(option.setMetaContext, metaData("", ["base:allocation"])),
  optionBytes(option.info, infoData("", [1, 2, 3])),
  optionBytes(option.go, infoData("", [3])),
  requestBytes({ type: command.read, length: 4096, cookie: 2n }),
  requestBytes({ type: command.blockStatus, length: mebibyte, cookie: 3n }),
  requestBytes({ type: command.trim, length: 4096, offset: 8192, cookie: 4n }),
  requestBytes({ type: command.write, payload: Buffer.alloc(48, 7), cookie: 5n }),
]);

for (const how of ["closed", "half closed"] as const) {
  check(
    `${how} after any byte: dropped, and nothing but whole requests is executed`,
    async ({ path, server, device }) => {
      let writes = 0;
      device.before = ({ method, offset }) => void (writes += method === "write" && offset === 0 ? 1 : 0);
      for (let bytes = 0; bytes < conversation.length; bytes++) {
        const client = await RawClient.connect(path);
        client.send(conversation.subarray(0, bytes));
        if (how === "half closed") client.socket.end();
        else client.socket.end(() => client.close());
        await client.rest();
      }
      await until(() => server.connectionCount === 1, "all are gone but the bystander");
      assert.is(writes, 0);
      assert.is(device.bytes[0], 0);
    },
  );
}

check(
  "gone with requests in the device: they count until it has settled them",
  async ({ path, server, device }) => {
    const held = Promise.withResolvers<void>();
    device.before = ({ offset }) => offset === 0 ? held.promise : undefined;
    const before = server.committedBytes;
    for (let count = 0; count < 20; count++) {
      const client = await RawClient.ready(path);
      client.send(requestBytes({ type: command.read, length: mebibyte }));
      await until(
        () => device.calls.filter(({ offset }) => offset === 0).length === count + 1,
        "it is executing",
      );
      client.close();
    }
    await until(() => server.connectionCount === 1, "they are gone");
    assert.is(server.committedBytes, before + 20 * mebibyte);
    held.resolve();
    await until(() => server.committedBytes === before, "nothing is held");
  },
);

check(
  "killed with more waiting than may be read: noticed all the same, and what waits is given up",
  async (context) => {
    const { path, server, device } = context;
    let givenUp = 0;
    device.before = ({ method, offset }) =>
      method === "flush" || offset === 0 ? new Promise(() => {}) : undefined;
    device.onClient = (client) => client.addEventListener("abort", () => givenUp++);
    const client = await RawClient.ready(path);
    // As many as may be in flight, and so many more that the socket is full of them.
    const payload = Buffer.alloc(64 * 1024);
    for (let count = 0; count < 200; count++) client.send(requestBytes({ type: command.write, payload }));
    const inFlight = () => server.clients().find(({ id }) => id === 2)?.requestsInFlight;
    await until(() => inFlight() === limits.maxRequestsPerConnection, "all that may be is in flight");
    await until(() => client.socket.writableLength > 0, "the socket is full");
    client.close();
    await until(() => server.connectionCount === 1, "it is gone");
    assert.is(givenUp, limits.maxRequestsPerConnection);
  },
);

check(
  "half closed with more waiting than may be read: it still gets its replies",
  async ({ path, device }) => {
    const held = Promise.withResolvers<void>();
    device.before = ({ offset }) => offset === 0 ? held.promise : undefined;
    const client = await RawClient.ready(path);
    const wanted = 3 * limits.maxRequestsPerConnection;
    for (let count = 1; count <= wanted; count++) {
      client.send(requestBytes({ type: command.write, payload: Buffer.alloc(512), cookie: BigInt(count) }));
    }
    client.send(requestBytes({ type: command.disconnect }));
    client.socket.end();
    // Longer than it takes to look for clients that are gone.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    held.resolve();
    for (let count = 1; count <= wanted; count++) assert.is((await client.reply()).error, 0);
    assert.is((await client.rest()).length, 0);
  },
);

test.run();
