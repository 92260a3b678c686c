import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { command, NbdProtocolError } from "../../src/nbd-server/protocol.ts";
import { BufferPool } from "../../src/lib/buffer-pool.ts";
import { type Admission, type Request, RequestDecoder } from "../../src/nbd-server/request-decoder.ts";
import { type RawRequest, requestBytes } from "./raw-client.ts";

const test = suite("RequestDecoder");

const take = (): Admission => "take";

function decodeAll(chunks: readonly Uint8Array[], admit: (request: Request) => Admission = take): Request[] {
  const decoder = new RequestDecoder(new BufferPool(0));
  const requests: Request[] = [];
  for (const chunk of chunks) {
    decoder.push(chunk);
    for (;;) {
      const request = decoder.next(admit);
      if (request === undefined) break;
      requests.push(request);
    }
  }
  return requests;
}

/** Comparable with what was sent. */
function plain(request: Request) {
  const { flags, type, cookieHigh, cookieLow, offset, length, payload } = request;
  return {
    flags,
    type,
    cookie: (BigInt(cookieHigh) << 32n) | BigInt(cookieLow),
    offset,
    length,
    payload: [...payload],
  };
}

function chop(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const at = [...new Set([0, ...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length])];
  at.sort((a, b) => a - b);
  return at.slice(1).map((end, index) => bytes.subarray(at[index], end));
}

const read: RawRequest = { type: command.read, flags: 4, cookie: 0xfedcba9876543210n, offset: 2 ** 40 + 3 };
const write: RawRequest = { type: command.write, offset: 7, payload: Buffer.from("hello, block") };

test("decodes a header's every field", () => {
  const [request] = decodeAll([requestBytes({ ...read, length: 4096 })]);
  assert.equal(plain(request), {
    flags: 4,
    type: command.read,
    cookie: 0xfedcba9876543210n,
    offset: 2 ** 40 + 3,
    length: 4096,
    payload: [],
  });
});

test("decodes byte by byte as in one piece", () => {
  const bytes = Buffer.concat([requestBytes(write), requestBytes(read), requestBytes(write)]);
  const whole = decodeAll([bytes]).map(plain);
  const single = decodeAll([...bytes].map((byte) => Uint8Array.of(byte))).map(plain);
  assert.is(whole.length, 3);
  assert.equal(single, whole);
  assert.equal(whole[2].payload, [...write.payload!]);
});

test("gives a payload that lies whole in a chunk as a view of it, without a copy", () => {
  const bytes = requestBytes(write);
  const [request] = decodeAll([bytes]);
  assert.is(request.payload.buffer, bytes.buffer);
});

test("decodes any stream however it is chopped", () => {
  const anyRequest = fc.record({
    type: fc.integer({ min: 0, max: 9 }),
    flags: fc.integer({ min: 0, max: 0xffff }),
    cookie: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    offset: fc.integer({ min: 0, max: 2 ** 50 }),
    data: fc.uint8Array({ maxLength: 300 }),
  });
  fc.assert(fc.property(fc.array(anyRequest, { maxLength: 12 }), fc.array(fc.nat()), (list, cuts) => {
    const sent = list.map(({ type, flags, cookie, offset, data }) => {
      const isWrite = type === command.write;
      return { type, flags, cookie, offset, length: data.length, payload: isWrite ? [...data] : [] };
    });
    const bytes = Buffer.concat(
      sent.map((request) => requestBytes({ ...request, payload: Uint8Array.from(request.payload) })),
    );
    assert.equal(decodeAll(chop(bytes, cuts)).map(plain), sent);
  }));
});

test("skips the payload of a drained write and finds the next request, however it is chopped", () => {
  const refused = { ...write, payload: Buffer.alloc(1000, 0x25) };
  const bytes = Buffer.concat([requestBytes(refused), requestBytes(read)]);
  fc.assert(fc.property(fc.array(fc.nat(), { maxLength: 20 }), (cuts) => {
    const requests = decodeAll(chop(bytes, cuts), ({ type }) => type === command.write ? "drain" : "take");
    assert.equal(requests.map(({ type }) => type), [command.write, command.read]);
    assert.is(requests[0].payload.length, 0);
  }));
});

test("waits before the payload until it is admitted, and asks again", () => {
  const decoder = new RequestDecoder(new BufferPool(0));
  decoder.push(requestBytes(write));
  let isOpen = false;
  const admit = (): Admission => isOpen ? "take" : "wait";
  assert.is(decoder.next(admit), undefined);
  assert.is(decoder.next(admit), undefined);
  assert.ok(decoder.isWaiting);
  isOpen = true;
  assert.equal([...decoder.next(admit)!.payload], [...write.payload!]);
  assert.not.ok(decoder.isWaiting);
  assert.is(decoder.next(admit), undefined);
});

test("asks for admission once when the payload trickles in", () => {
  let asked = 0;
  const count = (): Admission => {
    asked++;
    return "take";
  };
  const bytes = requestBytes(write);
  assert.is(decodeAll([...bytes].map((byte) => Uint8Array.of(byte)), count).length, 1);
  assert.is(asked, 1);
});

test("takes a write without data", () => {
  const [first, second] = decodeAll([
    Buffer.concat([requestBytes({ type: command.write }), requestBytes(write)]),
  ]);
  assert.is(first.payload.length, 0);
  assert.equal([...second.payload], [...write.payload!]);
});

test("refuses a wrong magic number", () => {
  const bytes = requestBytes(write);
  bytes[3] ^= 1;
  assert.throws(() => decodeAll([bytes]), (error: unknown) => error instanceof NbdProtocolError);
});

test("either decodes garbage or throws NbdProtocolError", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), fc.array(fc.nat()), (bytes, cuts) => {
    try {
      decodeAll(chop(bytes, cuts));
    } catch (error) {
      assert.instance(error, NbdProtocolError);
    }
  }));
});

test("allocates nothing for a long write's payload before a byte of it is there", () => {
  const decoder = new RequestDecoder(new BufferPool(0));
  const before = process.memoryUsage().arrayBuffers;
  for (let index = 0; index < 20; index++) {
    decoder.push(requestBytes({ type: command.write, length: 0 }));
    decoder.next(take);
  }
  decoder.push(requestBytes({ type: command.write, length: 0xffffffff }));
  assert.is(decoder.next(take), undefined);
  assert.ok(process.memoryUsage().arrayBuffers - before < 1e6);
});

test.run();
