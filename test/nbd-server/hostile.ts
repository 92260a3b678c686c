/**
 * What tests of hostile clients share: a server in this process with small limits, and a well-behaved client
 * that writes and reads back all the while. Each test ends with that client going on, whatever was done.
 */
import { randomInt } from "node:crypto";
import { join } from "node:path";
import type { suite } from "uvu";
import * as assert from "uvu/assert";
import { NbdServer, type NbdServerOptions } from "../../src/nbd-server/mod.ts";
import { command } from "../../src/nbd-server/protocol.ts";
import { tempFolder } from "../helpers/temp.ts";
import { until } from "../helpers/until.ts";
import { MemoryDevice } from "./memory-device.ts";
import { RawClient, type RawReply } from "./raw-client.ts";

export const mebibyte = 1024 * 1024;
/** Half of the disk is for the hostile clients, the other half is the bystander's. */
export const diskBytes = 8 * mebibyte;
export const hostileBytes = diskBytes / 2;

export const limits = {
  maxBytesPerConnection: 4 * mebibyte,
  maxRequestsPerConnection: 16,
} as const;

/** Where the handshake's deadline is what is tested: long enough for the bystander on a busy machine. */
export const hurried = { ...limits, handshakeTimeoutMs: 2000 } as const;

export interface Hostile {
  readonly device: MemoryDevice;
  readonly server: NbdServer;
  readonly path: string;
  /** What the server's log was told. */
  readonly errors: Error[];
  readonly bystander: Bystander;
}

type Test = ReturnType<typeof suite>;

/** Adds tests to a suite that each have a server and a bystander of their own. */
export function hostileTo(test: Test, options: NbdServerOptions = limits) {
  return (what: string, body: (hostile: Hostile) => Promise<void>) => {
    test(what, () => serving(options, body));
  };
}

async function serving(options: NbdServerOptions, body: (hostile: Hostile) => Promise<void>): Promise<void> {
  const device = new MemoryDevice(diskBytes);
  const errors: Error[] = [];
  const server = new NbdServer(device, { ...options, onError: (error) => errors.push(error) });
  const path = join(tempFolder("nbd"), "s");
  await server.listen(path);
  const bystander = await Bystander.start(path, hostileBytes, diskBytes);
  try {
    await body({ device, server, path, errors, bystander });
    await bystander.goesOn();
    assert.ok(server.committedBytes <= (options.maxBytes ?? 256 * mebibyte));
  } finally {
    await bystander.stop();
    await server.close();
  }
}

/** Writes, reads back and compares, for ever, one request at a time. */
export class Bystander {
  readonly #client: RawClient;
  readonly #from: number;
  readonly #to: number;
  #rounds = 0;
  #isStopped = false;
  #failure: Error | undefined;
  #ended: Promise<void> = Promise.resolve();

  private constructor(client: RawClient, from: number, to: number) {
    this.#client = client;
    this.#from = from;
    this.#to = to;
  }

  /** Uses the bytes [from, to) of the disk. */
  static async start(path: string, from: number, to: number): Promise<Bystander> {
    const bystander = new Bystander(await RawClient.ready(path), from, to);
    bystander.#ended = bystander.#run().catch((error) => void (bystander.#failure = error));
    return bystander;
  }

  /** Resolves when some more rounds were right. */
  async goesOn(rounds = 3): Promise<void> {
    const wanted = this.#rounds + rounds;
    await until(() => this.#failure !== undefined || this.#rounds >= wanted, "the bystander goes on", 60_000);
    if (this.#failure !== undefined) throw this.#failure;
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#client.close();
    await this.#ended;
  }

  async #run(): Promise<void> {
    const client = this.#client;
    while (!this.#isStopped) {
      const length = randomInt(1, 128 * 1024);
      const offset = randomInt(this.#from, this.#to - length);
      const payload = Buffer.alloc(length, randomInt(1, 256));
      try {
        assert.is((await client.request({ type: command.write, offset, payload })).error, 0);
        const read = await client.request({ type: command.read, offset, length });
        assert.ok(read.data.subarray(8).equals(payload), "the bystander reads what it wrote");
      } catch (error) {
        if (!this.#isStopped) throw error;
      }
      this.#rounds++;
    }
  }
}

/** The data of a READ that is answered in any number of chunks; throws if it failed. */
export async function readAll(client: RawClient, offset: number, length: number): Promise<Buffer> {
  const data = Buffer.alloc(length);
  let reply: RawReply;
  do {
    reply = await client.reply();
    if (reply.error !== 0) throw new Error(`error ${reply.error}`);
    if (reply.type === 0) break;
    reply.data.copy(data, Number(reply.data.readBigUInt64BE(0)) - offset, 8);
  } while ((reply.flags & 1) === 0);
  return data;
}
