/** Clients that misbehave in the handshake: each is told what the protocol has for it, or dropped. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { command, magic, option, optionReply } from "../../src/nbd-server/protocol.ts";
import { until } from "../helpers/until.ts";
import { hostileTo, hurried } from "./hostile.ts";
import { infoData, metaData, optionBytes, RawClient, text, uint16, uint32 } from "./raw-client.ts";

const test = suite("NBD handshakes with hostile clients");
const check = hostileTo(test);
const checkInTime = hostileTo(test, hurried);

/** An option's header with any length and magic, without its data. */
function optionHeader(code: number, length: number, word: bigint = magic.option): Buffer {
  const header = optionBytes(code);
  header.writeBigUInt64BE(word, 0);
  header.writeUInt32BE(length, 12);
  return header;
}

async function greeted(path: string): Promise<RawClient> {
  const client = await RawClient.connect(path);
  await client.receive(18);
  client.send(uint32(3));
  return client;
}

const dropped: [string, ...Uint8Array[]][] = [
  ["unknown client flags", uint32(0x80000003)],
  ["a request instead of client flags", uint32(magic.request)],
  ["the old style's magic for an option", uint32(3), optionHeader(option.go, 0, 0x0000420281861253n)],
  ["an option reply", uint32(3), optionHeader(option.go, 0, magic.optionReply)],
  ["an option of 4 GiB", uint32(3), optionHeader(option.go, 0xffffffff)],
  ["an unknown option of 4 GiB", uint32(3), optionHeader(0x7fffffff, 0xffffffff)],
  ["an option of 1 MiB and a byte", uint32(3), optionHeader(option.list, 1024 * 1024 + 1)],
  ["an export name of 16 KiB and a byte", uint32(3), optionHeader(option.exportName, 16 * 1024 + 1)],
  [
    "an export that is not there, where no error can be told",
    uint32(3),
    optionBytes(option.exportName, Buffer.from("x")),
  ],
];

check("what leaves no common ground is dropped, and the log says why", async ({ path, errors }) => {
  for (const [what, ...parts] of dropped) {
    const client = await RawClient.connect(path);
    client.send(...parts);
    assert.is((await client.rest()).length, 18, what);
    assert.match(errors.at(-1)!.message, "NBD client dropped", what);
  }
  assert.is(errors.length, dropped.length);
});

const { errorInvalid, errorUnknown, errorUnsupported, errorTooBig, ack } = optionReply;
const huge = 0xffffffff;

const refused: [string, number, Uint8Array, number][] = [
  ["an unknown option", 0x12345678, Buffer.alloc(100), errorUnsupported],
  ["TLS", 5, Buffer.alloc(0), errorUnsupported],
  ["extended headers", 11, Buffer.alloc(0), errorUnsupported],
  ["an unknown option of 100 KB", 99, Buffer.alloc(100_000), errorUnsupported],
  ["a list with data", option.list, Buffer.alloc(1), errorInvalid],
  ["a list with 1 MiB of data", option.list, Buffer.alloc(1024 * 1024), errorTooBig],
  ["structured replies with data", option.structuredReply, Buffer.alloc(1), errorInvalid],
  ["GO without data", option.go, Buffer.alloc(0), errorInvalid],
  ["GO with half a length", option.go, Buffer.alloc(3), errorInvalid],
  ["GO with a name of 4 GiB", option.go, Buffer.concat([uint32(huge), uint16(0)]), errorInvalid],
  [
    "GO with a name longer than its data",
    option.go,
    Buffer.concat([uint32(5), Buffer.from("abc"), uint16(0)]),
    errorInvalid,
  ],
  ["GO with a name of 4097 bytes", option.go, infoData("x".repeat(4097)), errorInvalid],
  [
    "GO with 65,535 types and none of them",
    option.go,
    Buffer.concat([text(""), uint16(0xffff)]),
    errorInvalid,
  ],
  ["GO with a byte too many", option.go, Buffer.concat([infoData(""), Buffer.alloc(1)]), errorInvalid],
  ["GO to another export", option.go, infoData("other"), errorUnknown],
  [
    "INFO on a name of garbage",
    option.info,
    Buffer.concat([uint32(4), Buffer.alloc(4, 0xff), uint16(0)]),
    errorUnknown,
  ],
  [
    "contexts: 4 billion queries and none of them",
    option.setMetaContext,
    Buffer.concat([text(""), uint32(huge)]),
    errorInvalid,
  ],
  [
    "contexts: a query of 4 GiB",
    option.setMetaContext,
    Buffer.concat([text(""), uint32(1), uint32(huge)]),
    errorInvalid,
  ],
  [
    "contexts: more queries than announced",
    option.listMetaContext,
    Buffer.concat([text(""), uint32(1), text("a"), text("b")]),
    errorInvalid,
  ],
  [
    "contexts without structured replies",
    option.setMetaContext,
    metaData("", ["base:allocation"]),
    errorInvalid,
  ],
];

check("what the protocol has an error for gets it, and the handshake goes on", async ({ path, errors }) => {
  const client = await greeted(path);
  for (const [what, code, data, error] of refused) {
    const [reply, ...more] = await client.option(code, data, { mayFail: true });
    assert.equal([reply.option, reply.type, more.length], [code, error, 0], what);
  }
  await client.option(option.go, infoData(""));
  assert.is((await client.request({ type: command.read, length: 512 })).error, 0);
  assert.is(errors.length, 0);
  client.close();
});

check("types without end, queries without end: each is answered once", async ({ path }) => {
  const client = await greeted(path);
  await client.option(option.structuredReply);
  const types = await client.option(option.info, infoData("", Array(8000).fill(3)));
  assert.is(types.length, 3, "the export, the block size, and the end");
  const queries = Array(1000).fill("base:allocation");
  const contexts = await client.option(option.setMetaContext, metaData("", queries.slice(0, 800)));
  assert.is(contexts.length, 2);
  const unknown = await client.option(option.setMetaContext, metaData("", Array(4000).fill("")));
  assert.equal(unknown.map(({ type }) => type), [ack]);
  client.close();
});

check("meta contexts that are selected over and over: the last selection holds", async ({ path }) => {
  const client = await greeted(path);
  await client.option(option.structuredReply);
  for (let round = 0; round < 100; round++) {
    await client.option(option.setMetaContext, metaData("", ["base:allocation", "dlsm:residency"]));
    await client.option(option.setMetaContext, metaData("", []));
  }
  await client.option(option.go, infoData(""));
  assert.is((await client.request({ type: command.blockStatus, length: 512 })).error, 22, "none is selected");
  client.close();
});

check("options without end, and no answer is read: dropped after so many", async ({ path, errors }) => {
  for (const code of [option.list, option.info, option.listMetaContext, 99]) {
    const client = await RawClient.connect(path);
    client.send(uint32(3), optionBytes(option.structuredReply));
    const data = code === option.info
      ? infoData("", [1, 2, 3])
      : code === 99
      ? Buffer.alloc(16_000)
      : undefined;
    client.send(Buffer.concat(Array(2000).fill(optionBytes(code, data))));
    await client.rest();
    assert.match(errors.at(-1)!.message, "too many options");
  }
});

const stalls: [string, ...Uint8Array[]][] = [
  ["no client flags"],
  ["half of the client flags", uint32(3).subarray(0, 2)],
  ["no option", uint32(3)],
  ["half of an option's header", uint32(3), optionBytes(option.go).subarray(0, 15)],
  ["an option without its data", uint32(3), optionHeader(option.go, 16)],
  ["an option that is drained, without its data", uint32(3), optionHeader(option.list, 1024 * 1024)],
  ["options, but no GO", uint32(3), optionBytes(option.list), optionBytes(option.structuredReply)],
];

checkInTime(
  "whoever hangs half-way is dropped at the deadline, all of them at once",
  async ({ path, errors, server }) => {
    const clients = await Promise.all(stalls.map(async ([, ...parts]) => {
      const client = await RawClient.connect(path);
      client.send(...parts);
      return client;
    }));
    await Promise.all(clients.map((client) => client.rest()));
    assert.equal(
      new Set(errors.map(({ message }) => message)),
      new Set(["NBD client dropped: no handshake in time"]),
    );
    assert.is(errors.length, stalls.length);
    assert.is(server.connectionCount, 1);
  },
);

checkInTime(
  "a slow sender has until the deadline, however often it sends a byte",
  async ({ path, errors }) => {
    const client = await RawClient.connect(path);
    client.send(uint32(3), optionHeader(option.list, 1024 * 1024));
    const timer = setInterval(() => client.send(Buffer.alloc(1)), hurried.handshakeTimeoutMs / 20);
    await client.rest();
    clearInterval(timer);
    assert.match(errors[0].message, "no handshake in time");
  },
);

check("ABORT with half of the next option behind it: answered, and closed", async ({ path, server }) => {
  const client = await greeted(path);
  client.send(optionBytes(option.abort), Buffer.alloc(7, 0xee));
  assert.is((await client.optionReply()).type, ack);
  assert.is((await client.rest()).length, 0);
  await until(() => server.connectionCount === 1, "it is gone");
});

test.run();
