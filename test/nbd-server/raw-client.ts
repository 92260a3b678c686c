/** A minimal NBD client that does exactly what it is told, for what real clients never do. */
import { connect, type Socket } from "node:net";
import { command, magic, option, optionReply } from "../../src/nbd-server/protocol.ts";

export function optionBytes(code: number, data: Uint8Array = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(16);
  header.writeBigUInt64BE(magic.option, 0);
  header.writeUInt32BE(code, 8);
  header.writeUInt32BE(data.length, 12);
  return Buffer.concat([header, data]);
}

export function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([uint32(bytes.length), bytes]);
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

/** Data of INFO and GO. */
export function infoData(name: string, types: readonly number[] = []): Buffer {
  return Buffer.concat([text(name), uint16(types.length), ...types.map(uint16)]);
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function metaData(name: string, queries: readonly string[]): Buffer {
  return Buffer.concat([text(name), uint32(queries.length), ...queries.map(text)]);
}

export interface RawRequest {
  readonly type: number;
  readonly flags?: number;
  readonly cookie?: bigint;
  readonly offset?: number | bigint;
  readonly length?: number;
  readonly payload?: Uint8Array;
}

export function requestBytes(request: RawRequest): Buffer {
  const { type, flags = 0, cookie = 1n, offset = 0, payload = Buffer.alloc(0) } = request;
  const header = Buffer.alloc(28);
  header.writeUInt32BE(magic.request, 0);
  header.writeUInt16BE(flags, 4);
  header.writeUInt16BE(type, 6);
  header.writeBigUInt64BE(cookie, 8);
  header.writeBigUInt64BE(BigInt(offset), 16);
  header.writeUInt32BE(request.length ?? payload.length, 24);
  return Buffer.concat([header, payload]);
}

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

/** A simple reply has kind "simple"; `data` of a chunk is its payload. */
export interface RawReply {
  readonly kind: "simple" | "chunk";
  readonly cookie: bigint;
  /** Of a simple reply, or of an error chunk; else 0. */
  readonly error: number;
  readonly flags: number;
  readonly type: number;
  readonly data: Buffer;
}

export class RawClient {
  readonly socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #chunks: Buffer[] = [];
  #ended = false;
  #moved = () => {};

  /** Reads from the socket only while somebody waits in `receive` or `rest`. */
  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#moved();
    });
    socket.pause();
    const end = () => {
      this.#ended = true;
      this.#moved();
    };
    for (const event of ["error", "end", "close"]) socket.on(event, end);
  }

  /** Connected, nothing sent or received yet. */
  static async connect(path: string): Promise<RawClient> {
    const socket = connect({ path, allowHalfOpen: true });
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    return new RawClient(socket);
  }

  /** In the transmission phase. `contexts` are selected, which needs structured replies. */
  static async ready(
    path: string,
    { structured = true, contexts = [] as readonly string[] } = {},
  ): Promise<RawClient> {
    const client = await RawClient.connect(path);
    await client.receive(18);
    client.send(uint32(3));
    if (structured) await client.option(option.structuredReply);
    if (contexts.length > 0) await client.option(option.setMetaContext, metaData("", contexts));
    await client.option(option.go, infoData(""));
    return client;
  }

  send(...parts: Uint8Array[]): void {
    for (const part of parts) this.socket.write(part);
  }

  /** Sends an option; all replies to it up to the final one, which must be ACK unless `mayFail`. */
  async option(code: number, data?: Uint8Array, { mayFail = false } = {}): Promise<OptionReply[]> {
    this.send(optionBytes(code, data));
    const replies: OptionReply[] = [];
    for (;;) {
      const reply = await this.optionReply();
      replies.push(reply);
      const isError = reply.type >= 0x80000000;
      if (isError && !mayFail) throw new Error(`option ${code} failed: ${reply.data}`);
      if (isError || reply.type === optionReply.ack) return replies;
    }
  }

  async optionReply(): Promise<OptionReply> {
    const header = await this.receive(20);
    if (header.readBigUInt64BE(0) !== magic.optionReply) throw new Error("not an option reply");
    const data = await this.receive(header.readUInt32BE(16));
    return { option: header.readUInt32BE(8), type: header.readUInt32BE(12), data };
  }

  /** Sends a request and receives the next reply. `dataBytes`: what follows a successful simple reply. */
  request(request: RawRequest, dataBytes = 0): Promise<RawReply> {
    this.send(requestBytes(request));
    return this.reply(dataBytes);
  }

  async reply(dataBytes = 0): Promise<RawReply> {
    const word = (await this.receive(4)).readUInt32BE();
    if (word === magic.simpleReply) {
      const rest = await this.receive(12);
      const error = rest.readUInt32BE(0);
      const data = error === 0 ? await this.receive(dataBytes) : Buffer.alloc(0);
      return { kind: "simple", cookie: rest.readBigUInt64BE(4), error, flags: 1, type: 0, data };
    }
    if (word !== magic.structuredReply) throw new Error(`not a reply: ${word.toString(16)}`);
    const rest = await this.receive(16);
    const type = rest.readUInt16BE(2);
    const data = await this.receive(rest.readUInt32BE(12));
    const error = type >= 0x8000 ? data.readUInt32BE(0) : 0;
    return { kind: "chunk", cookie: rest.readBigUInt64BE(4), error, flags: rest.readUInt16BE(0), type, data };
  }

  /** Exactly so many bytes; throws at an end of file before that. */
  async receive(bytes: number): Promise<Buffer> {
    await this.#receiveUntil((available) => available >= bytes);
    if (this.#received.length < bytes) {
      throw new Error(`end of file after ${this.#received.length} of ${bytes} bytes`);
    }
    const data = this.#received.subarray(0, bytes);
    this.#received = this.#received.subarray(bytes);
    return data;
  }

  /** Everything up to the end of file. */
  async rest(): Promise<Buffer> {
    await this.#receiveUntil(() => false);
    return this.#received;
  }

  async #receiveUntil(isEnough: (availableBytes: number) => boolean): Promise<void> {
    let available = this.#received.length;
    while (!isEnough(available) && !this.#ended) {
      await new Promise<void>((resolve) => {
        this.#moved = resolve;
        this.socket.resume();
      });
      this.socket.pause();
      available = this.#chunks.reduce((sum, chunk) => sum + chunk.length, this.#received.length);
    }
    this.#received = Buffer.concat([this.#received, ...this.#chunks]);
    this.#chunks = [];
  }

  close(): void {
    this.socket.destroy();
  }

  disconnect(): void {
    this.send(requestBytes({ type: command.disconnect }));
  }
}
