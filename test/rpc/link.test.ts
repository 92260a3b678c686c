/** How the conversation begins, stays alive, is held back and ends; against scripted peers too. */
import { Buffer } from "node:buffer";
import type { Duplex } from "node:stream";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { encodeCbor } from "../../src/lib/cbor.ts";
import { PreconditionError } from "../../src/lib/errors.ts";
import { encodeFrame, FrameDecoder } from "../../src/rpc/frames.ts";
import { memoryPair } from "../../src/rpc/local.ts";
import { decodeMessage, type Message } from "../../src/rpc/messages.ts";
import {
  type Banner,
  capability,
  type Handlers,
  RemoteError,
  RpcClient,
  RpcClosedError,
  RpcHandshakeError,
  RpcProtocolError,
  serve,
} from "../../src/rpc/mod.ts";
import { rejection } from "../helpers/rejection.ts";

const banner = "dlsm-rpc 1\n";

/** A peer that says only what the test tells it to, and keeps what it hears. */
class Scripted {
  readonly stream: Duplex;
  readonly heard: Message[] = [];
  readonly ended = Promise.withResolvers<void>();
  firstLine = "";
  #wanted: (() => void) | undefined;

  constructor(stream: Duplex) {
    this.stream = stream;
    const decoder = new FrameDecoder({
      onBanner: (line) => (this.firstLine = `${line.version} ${line.capabilities.join(" ")}`),
      onFrame: (payload) => {
        this.heard.push(decodeMessage(payload));
        this.#wanted?.();
      },
    });
    stream.on("data", (chunk) => decoder.push(chunk));
    stream.on("error", () => {});
    stream.on("end", () => this.ended.resolve());
    stream.on("close", () => this.ended.resolve());
  }

  text(text: string): void {
    this.stream.write(Buffer.from(text));
  }

  message(message: unknown): void {
    this.stream.write(Buffer.from(encodeFrame(encodeCbor(message), 2 ** 30)));
  }

  /** Resolves when `count` messages of the type were heard. */
  async hears(type: Message["type"], count = 1): Promise<Message[]> {
    for (;;) {
      const found = this.heard.filter((message) => message.type === type);
      if (found.length >= count) return found;
      await new Promise<void>((resolve) => (this.#wanted = resolve));
    }
  }
}

function scriptedServer(): { readonly peer: Scripted; readonly here: Duplex } {
  const [here, there] = memoryPair();
  return { peer: new Scripted(there), here };
}

function scriptedClient(handlers: Handlers, options?: Parameters<typeof serve>[2]) {
  const [here, there] = memoryPair();
  const served = serve(there, handlers, options);
  return { peer: new Scripted(here), served };
}

const test = suite("rpc: link");

// A link's own timer does not hold the process, its stream does; these streams are in memory.
let held: ReturnType<typeof setInterval>;
test.before(() => {
  held = setInterval(() => {}, 60_000);
});
test.after(() => clearInterval(held));

test("connect() of another version says which, and how to mend it", async () => {
  const { peer, here } = scriptedServer();
  peer.text("dlsm-rpc 7 from-the-future\n");
  const error = await rejection(RpcClient.connect(here), RpcHandshakeError);
  assert.ok(error instanceof PreconditionError);
  assert.match(error.message, /version 7, this one 1/);
  assert.match(error.hint!, "same version of dlsm on both hosts");
  await peer.ended.promise;
  assert.match(peer.firstLine, /^1 max-frame=\d+ max-calls=\d+ beat-ms=\d+$/);
});

test("both sides may say more in their first line, and either may refuse what it reads there", async () => {
  const { peer, served } = scriptedClient({}, { capabilities: ["dlsm=1.2.3"] });
  peer.text(banner);
  served.close();
  await peer.ended.promise;
  assert.match(peer.firstLine, / dlsm=1\.2\.3$/);

  const read: (string | undefined)[] = [];
  const refuse = (line: Banner) => {
    read.push(capability(line, "dlsm"));
    return read[0] === "1.2.4" ? undefined : new RpcHandshakeError("another one", { hint: "mend it" });
  };
  const other = scriptedServer();
  other.peer.text("dlsm-rpc 1 dlsmx=0 dlsm=1.2.3\n");
  const connected = RpcClient.connect(other.here, { capabilities: ["dlsm=1.2.4"], refuse });
  const error = await rejection(connected, RpcHandshakeError);
  assert.is(`${error.message}: ${error.hint}`, "another one: mend it");
  // It can say the same there.
  await other.peer.ended.promise;
  assert.match(other.peer.firstLine, / dlsm=1\.2\.4$/);
  assert.equal(read, ["1.2.3"]);
});

test("connect() of something else shows what it said", async () => {
  const { peer, here } = scriptedServer();
  peer.text("Last login: yesterday\ndlsm-rpc 1\n");
  const error = await rejection(RpcClient.connect(here), RpcHandshakeError);
  assert.match(error.message, '"Last login: yesterday"');
});

test("connect() of a peer that ends at once, or in the middle of its first line", async () => {
  for (const [said, expected] of [["", "without a word"], ["bash: dlsm: not", '"bash: dlsm: not"']]) {
    const { peer, here } = scriptedServer();
    if (said !== "") peer.text(said);
    peer.stream.end();
    assert.match((await rejection(RpcClient.connect(here), RpcHandshakeError)).message, expected);
  }
});

test("connect() of a silent peer ends after handshakeTimeoutMs", async () => {
  const { here } = scriptedServer();
  const error = await rejection(RpcClient.connect(here, { handshakeTimeoutMs: 20 }), RpcHandshakeError);
  assert.match(error.message, "nothing for 20 ms");
});

test("beats go both ways", async () => {
  const asClient = scriptedServer();
  asClient.peer.text(banner);
  const client = await RpcClient.connect(asClient.here, { heartbeatMs: 5, silentBeats: 1e6 });
  await asClient.peer.hears("beat", 3);
  client.close();
  const asServer = scriptedClient({}, { heartbeatMs: 5, silentBeats: 1e6 });
  asServer.peer.text(banner);
  await asServer.peer.hears("beat", 3);
  asServer.served.close();
});

test("a peer that goes silent is noticed on either side", async () => {
  const silent = { heartbeatMs: 5, silentBeats: 3 };
  const asClient = scriptedServer();
  asClient.peer.text(banner);
  const client = await RpcClient.connect(asClient.here, silent);
  const error = await rejection(client.call("anything"), RpcClosedError);
  assert.match(error.message, "silent");
  await client.closed;

  const reason = Promise.withResolvers<unknown>();
  const work = (_: unknown, { signal }: { signal: AbortSignal }) =>
    new Promise(() => signal.addEventListener("abort", () => reason.resolve(signal.reason)));
  const asServer = scriptedClient({ work }, silent);
  asServer.peer.text(banner);
  asServer.peer.message({ type: "call", id: 1, method: "work", params: null });
  assert.match(String(await reason.promise), "silent");
  await asServer.served.closed;
});

test("a peer that only sends beats is alive", async () => {
  const { peer, here } = scriptedServer();
  peer.text(banner);
  const client = await RpcClient.connect(here, { heartbeatMs: 5, silentBeats: 2 });
  const call = client.call("slow");
  // Answers every beat with one, and the call only after many.
  for (let count = 1; count <= 30; count++) {
    await peer.hears("beat", count);
    peer.message({ type: "beat" });
  }
  peer.message({ type: "result", id: 0, value: "at last" });
  assert.is(await call, "at last");
  client.close();
});

test("a peer that beats more rarely than we do is waited for accordingly", async () => {
  const { peer, here } = scriptedServer();
  peer.text("dlsm-rpc 1 beat-ms=200\n");
  const client = await RpcClient.connect(here, { heartbeatMs: 5, silentBeats: 2 });
  const call = client.call("slow");
  await peer.hears("beat", 30);
  peer.message({ type: "result", id: 0, value: "in time" });
  assert.is(await call, "in time");
  client.close();
});

test("the end of the stream inside a message is a broken connection", async () => {
  const { peer, here } = scriptedServer();
  peer.text(banner);
  const client = await RpcClient.connect(here);
  const call = rejection(client.call("work"), RpcClosedError);
  peer.stream.write(Buffer.from([0, 0, 0, 9, 1, 2]));
  peer.stream.end();
  assert.match((await call).message, "inside a message");
});

test("answers that break the protocol end the conversation with RpcProtocolError", async () => {
  const wrong: unknown[] = [
    { type: "result", id: 99, value: 1 },
    { type: "call", id: 0, method: "m", params: null },
    { type: "cancel", id: 0 },
    { type: "nonsense" },
    42,
  ];
  for (const message of wrong) {
    const { peer, here } = scriptedServer();
    peer.text(banner);
    const client = await RpcClient.connect(here);
    const call = rejection(client.call("work"), RpcProtocolError);
    peer.message(message);
    await call;
    await client.closed;
    await peer.ended.promise;
  }
});

test("a message larger than the limit ends the conversation before it is read", async () => {
  const { peer, here } = scriptedServer();
  peer.text(banner);
  const client = await RpcClient.connect(here, { maxFrameBytes: 100 });
  const call = rejection(client.call("work"), RpcProtocolError);
  peer.stream.write(Buffer.from([0, 0, 0, 101]));
  assert.match((await call).message, "101 bytes");
});

test("what is too large for the other side fails its own call only", async () => {
  const [here, there] = memoryPair();
  const handlers: Handlers = {
    echo: (params) => Promise.resolve(params),
    large: () => Promise.resolve("x".repeat(5000)),
  };
  serve(there, handlers, { maxFrameBytes: 1024 });
  const client = await RpcClient.connect(here, { maxFrameBytes: 2000 });
  await rejection(client.call("echo", "x".repeat(1500)), RangeError);
  assert.match((await rejection(client.call("large"), RemoteError)).message, "2000 are allowed");
  assert.is(await client.call("echo", "small"), "small");
  client.close();
});

test("a caller that sends more calls than its credit, or one twice, is cut off", async () => {
  const handlers: Handlers = { wait: () => new Promise(() => {}) };
  for (const ids of [[1, 2, 3], [1, 1]]) {
    const { peer, served } = scriptedClient(handlers, { maxCalls: 2 });
    peer.text(banner);
    for (const id of ids) peer.message({ type: "call", id, method: "wait", params: null });
    await served.closed;
    await peer.ended.promise;
  }
});

test("a caller that does not read gets no more started, and only its latest progress later", async () => {
  const [here, there] = memoryPair();
  let started = 0;
  const release = Promise.withResolvers<void>();
  const said = Promise.withResolvers<void>();
  const handlers: Handlers = {
    large: () => Promise.resolve(new Uint8Array(200_000)),
    talk: async (_, { progress }) => {
      started++;
      for (let value = 0; value <= 10_000; value++) progress({ value, padding: "x".repeat(100) });
      said.resolve();
      await release.promise;
      return "end";
    },
    count: () => Promise.resolve(++started),
  };
  serve(there, handlers);
  here.write(Buffer.from(banner));
  const send = (id: number, method: string) =>
    here.write(Buffer.from(encodeFrame(encodeCbor({ type: "call", id, method, params: null }), 1000)));
  send(0, "talk");
  await said.promise;
  // Far below the megabyte of all the values: they were not piled up.
  assert.ok(there.writableLength < 200_000, `${there.writableLength} bytes wait`);
  send(1, "count");
  send(2, "count");
  // The pair hands over in turns of the event loop; give the calls every chance to arrive.
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.is(started, 1);

  const peer = new Scripted(here);
  await peer.hears("result", 2);
  release.resolve();
  await peer.hears("result", 3);
  assert.is(started, 3);
  const progress = await peer.hears("progress");
  const last = progress.at(-1) as { readonly value: { readonly value: number } };
  assert.is(last.value.value, 10_000);
  assert.ok(progress.length < 2000, `${progress.length} values were sent`);
  here.destroy();
});

test("the client holds calls back while the stream does not take them", async () => {
  const [here, there] = memoryPair();
  there.write(Buffer.from(banner));
  const client = await RpcClient.connect(here, { maxCalls: 1000 });
  const calls = Array.from({ length: 100 }, () => client.call("work", new Uint8Array(20_000)));
  // One message beyond the stream's mark at most, not two megabytes.
  assert.ok(here.writableLength < 150_000, `${here.writableLength} bytes wait`);
  const peer = new Scripted(there);
  const sent = await peer.hears("call", 100) as { readonly id: number }[];
  for (const { id } of sent) peer.message({ type: "result", id, value: id });
  assert.equal(await Promise.all(calls), sent.map(({ id }) => id));
  client.close();
});

test.run();
