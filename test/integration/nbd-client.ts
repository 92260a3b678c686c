/** An NBD client with many requests in flight on one connection, for loads whose every step is known. */
import { Buffer } from "node:buffer";
import { command, commandFlag } from "../../src/nbd-server/protocol.ts";
import { RawClient, type RawRequest, requestBytes } from "../nbd-server/raw-client.ts";

/** `error`: an NBD error number, 0 for none. */
export interface Answer {
  readonly error: number;
  readonly data: Buffer;
}

interface Pending {
  readonly dataBytes: number;
  resolve(answer: Answer): void;
  reject(error: Error): void;
}

export class NbdClient {
  readonly #raw: RawClient;
  readonly #pending = new Map<bigint, Pending>();
  #cookie = 0n;
  #end: Error | undefined;

  private constructor(raw: RawClient) {
    this.#raw = raw;
    void this.#receive();
  }

  static async connect(socketPath: string): Promise<NbdClient> {
    // Simple replies: 16 bytes, then the data of a read.
    return new NbdClient(await RawClient.ready(socketPath, { structured: false }));
  }

  /** Requests without an answer. */
  get inFlight(): number {
    return this.#pending.size;
  }

  /** Rejects only if the connection ends before the answer. */
  request(request: RawRequest): Promise<Answer> {
    if (this.#end !== undefined) return Promise.reject(this.#end);
    const cookie = ++this.#cookie;
    this.#raw.send(requestBytes({ ...request, cookie }));
    const dataBytes = request.type === command.read ? request.length! : 0;
    return new Promise((resolve, reject) => this.#pending.set(cookie, { dataBytes, resolve, reject }));
  }

  async read(offset: number, length: number): Promise<Buffer> {
    return (await this.#good({ type: command.read, offset, length })).data;
  }

  async write(offset: number, payload: Uint8Array, { fua = false } = {}): Promise<void> {
    await this.#good({ type: command.write, offset, payload, flags: fua ? commandFlag.fua : 0 });
  }

  async zero(offset: number, length: number, { noHole = false, fua = false } = {}): Promise<void> {
    const flags = (noHole ? commandFlag.noHole : 0) | (fua ? commandFlag.fua : 0);
    await this.#good({ type: command.writeZeroes, offset, length, flags });
  }

  async trim(offset: number, length: number): Promise<void> {
    await this.#good({ type: command.trim, offset, length });
  }

  async flush(): Promise<void> {
    await this.#good({ type: command.flush });
  }

  /** NBD_CMD_CACHE. */
  async prefetch(offset: number, length: number): Promise<void> {
    await this.#good({ type: command.cache, offset, length });
  }

  /** Closes the connection; what has no answer yet rejects. */
  close(): void {
    this.#raw.close();
  }

  async #good(request: RawRequest): Promise<Answer> {
    const answer = await this.request(request);
    if (answer.error !== 0) {
      const { type, offset, length } = request;
      throw new Error(`NBD command ${type} at ${offset}, ${length}: error ${answer.error}`);
    }
    return answer;
  }

  async #receive(): Promise<void> {
    try {
      for (;;) {
        const header = await this.#raw.receive(16);
        const cookie = header.readBigUInt64BE(8);
        const pending = this.#pending.get(cookie);
        if (pending === undefined) throw new Error(`a reply to nothing that was asked: ${cookie}`);
        const error = header.readUInt32BE(4);
        const data = error === 0 ? await this.#raw.receive(pending.dataBytes) : Buffer.alloc(0);
        this.#pending.delete(cookie);
        pending.resolve({ error, data });
      }
    } catch (error) {
      this.#end = error as Error;
      for (const pending of this.#pending.values()) pending.reject(this.#end);
      this.#pending.clear();
    }
  }
}
