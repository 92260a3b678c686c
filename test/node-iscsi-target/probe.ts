/**
 * A minimal initiator for these tests (RFC 7143): one login with or without CHAP, from a chosen local address,
 * then reads and writes one at a time. Independent of the project's own initiator on purpose.
 */
import { createHash } from "node:crypto";
import { createConnection, type Socket } from "node:net";

export interface ProbeOptions {
  readonly address: string;
  readonly port: number;
  readonly targetName: string;
  readonly localAddress?: string;
  readonly chap?: { readonly user: string; readonly secret: string };
  /** What the target must prove itself with. */
  readonly mutual?: { readonly user: string; readonly secret: string };
  readonly initiatorName?: string;
}

interface Pdu {
  readonly header: Buffer;
  readonly data: Buffer;
}

export class Probe {
  readonly #socket: Socket;
  #received = Buffer.alloc(0);
  #wake: () => void = () => {};
  #commandNumber = 1;
  #tag = 1;
  closed = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#wake();
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      this.closed = true;
      this.#wake();
    });
  }

  /** Resolves with a session in full-feature phase; rejects with `login STATUS-CLASS/DETAIL` if refused. */
  static async login(options: ProbeOptions): Promise<Probe> {
    const { address: host, port, localAddress } = options;
    const socket = createConnection({ host, port, ...(localAddress === undefined ? {} : { localAddress }) });
    await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
    const probe = new Probe(socket);
    try {
      await probe.#negotiate(options);
      return probe;
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  async #negotiate(options: ProbeOptions): Promise<void> {
    const names = {
      InitiatorName: options.initiatorName ?? "iqn.2024-01.test:probe",
      TargetName: options.targetName,
      SessionType: "Normal",
    };
    if (options.chap !== undefined) {
      await this.#exchange(0, 0, false, { ...names, AuthMethod: "CHAP" });
      const challenge = await this.#exchange(0, 0, false, { CHAP_A: "5" });
      await this.#answerChallenge(challenge, options);
    } else {
      await this.#exchange(0, 1, true, { ...names, AuthMethod: "None" });
    }
    await this.#exchange(1, 3, true, { HeaderDigest: "None", DataDigest: "None" });
  }

  async #answerChallenge(challenge: Map<string, string>, options: ProbeOptions): Promise<void> {
    const own = Buffer.alloc(16, 0x5a);
    const answer: Record<string, string> = {
      CHAP_N: options.chap!.user,
      CHAP_R: chapResponse(
        Number(challenge.get("CHAP_I")),
        options.chap!.secret,
        unhex(challenge.get("CHAP_C")!),
      ),
    };
    if (options.mutual !== undefined) {
      Object.assign(answer, { CHAP_I: "7", CHAP_C: `0x${own.toString("hex")}` });
    }
    const proof = await this.#exchange(0, 1, true, answer);
    if (options.mutual === undefined) return;
    const expected = chapResponse(7, options.mutual.secret, own);
    if (proof.get("CHAP_N") !== options.mutual.user || proof.get("CHAP_R")?.toLowerCase() !== expected) {
      throw new Error("the target could not prove itself");
    }
  }

  /** One login request and its response. */
  async #exchange(stage: number, next: number, transit: boolean, keys: Record<string, string>) {
    const data = Buffer.from(Object.entries(keys).map(([key, value]) => `${key}=${value}\0`).join(""));
    const header = Buffer.alloc(48);
    header[0] = 0x43;
    header[1] = (transit ? 0x80 : 0) | (stage << 2) | (transit ? next : 0);
    header[8] = 0x80; // ISID: random type
    header.writeUInt32BE(this.#commandNumber, 24);
    this.#send(header, data);
    const response = await this.#pdu();
    const [statusClass, detail] = [response.header[36]!, response.header[37]!];
    if (statusClass !== 0) throw new Error(`login ${statusClass}/${detail}`);
    const text = response.data.toString().split("\0").filter((entry) => entry !== "");
    return new Map(
      text.map((entry) => [entry.slice(0, entry.indexOf("=")), entry.slice(entry.indexOf("=") + 1)]),
    );
  }

  /** READ(16) of LUN 1; absorbs the unit attention of a new session. */
  async read(lba: number, blocks: number, blockBytes = 512): Promise<Buffer> {
    for (let attempt = 0; attempt < 3; attempt++) {
      this.sendRead(lba, blocks, blockBytes);
      const { status, data } = await this.#result();
      if (status === 0) return data;
    }
    throw new Error("the read failed");
  }

  /** Sends a READ(16) and does not wait for what comes. */
  sendRead(lba: number, blocks: number, blockBytes = 512): void {
    this.#send(this.#command(0x88, 0x40, lba, blocks, blocks * blockBytes));
  }

  /** WRITE(16) of whole 512-byte blocks; as `attempt`. */
  write(lba: number, data: Buffer): Promise<string> {
    const cdb = Buffer.alloc(16);
    cdb[0] = 0x8a;
    cdb.writeBigUInt64BE(BigInt(lba), 2);
    cdb.writeUInt32BE(data.length / 512, 10);
    return this.attempt(cdb, data);
  }

  /**
   * Any command without Data-In, its data sent along with it; the sense key and codes that it ended with, "0/0/0"
   * for GOOD. Absorbs unit attentions.
   */
  async attempt(cdb: Buffer, data: Buffer): Promise<string> {
    for (let attempt = 0;; attempt++) {
      const header = this.#command(0, data.length > 0 ? 0x20 : 0, 0, 0, data.length);
      cdb.copy(header, 32);
      this.#send(header, data);
      const { status, data: sense } = await this.#result();
      if (status === 0) return "0/0/0";
      const codes = [sense[4]! & 0xf, sense[14]!, sense[15]!];
      if (codes[0] !== 6 || attempt > 2) return codes.map((code) => code.toString(16)).join("/");
    }
  }

  /** Stops reading from the socket. */
  pause(): void {
    this.#socket.pause();
  }

  close(): void {
    this.#socket.destroy();
  }

  #command(operation: number, direction: number, lba: number, blocks: number, lengthBytes: number): Buffer {
    const header = Buffer.alloc(48);
    header[0] = 0x01;
    header[1] = 0x80 | direction;
    header[9] = 1; // LUN 1
    header.writeUInt32BE(this.#tag++, 16);
    header.writeUInt32BE(lengthBytes, 20);
    header.writeUInt32BE(this.#commandNumber++, 24);
    header[32] = operation;
    header.writeBigUInt64BE(BigInt(lba), 34);
    header.writeUInt32BE(blocks, 42);
    return header;
  }

  /** Data-In and the status, in whichever PDU it comes; of a failed command the sense data. */
  async #result(): Promise<{ status: number; data: Buffer }> {
    const pieces: Buffer[] = [];
    for (;;) {
      const { header, data } = await this.#pdu();
      const operation = header[0]! & 0x3f;
      if (operation === 0x25) {
        pieces.push(data);
        if ((header[1]! & 1) !== 0) return { status: header[3]!, data: Buffer.concat(pieces) };
      } else if (operation === 0x21) {
        return { status: header[3]!, data: header[3] === 0 ? Buffer.concat(pieces) : data };
      }
    }
  }

  #send(header: Buffer, data: Buffer = Buffer.alloc(0)): void {
    header.writeUIntBE(data.length, 5, 3);
    this.#socket.write(Buffer.concat([header, data, Buffer.alloc(-data.length & 3)]));
  }

  async #pdu(): Promise<Pdu> {
    const header = Buffer.from(await this.#take(48));
    const lengthBytes = header.readUIntBE(5, 3);
    const data = Buffer.from(await this.#take((lengthBytes + 3) & ~3)).subarray(0, lengthBytes);
    return { header, data };
  }

  async #take(lengthBytes: number): Promise<Buffer> {
    while (this.#received.length < lengthBytes) {
      if (this.closed) throw new Error("the target closed the connection");
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    const taken = this.#received.subarray(0, lengthBytes);
    this.#received = this.#received.subarray(lengthBytes);
    return taken;
  }
}

const unhex = (text: string) => Buffer.from(text.replace(/^0x/i, ""), "hex");

function chapResponse(identifier: number, secret: string, challenge: Buffer): string {
  const hash = createHash("md5").update(Buffer.from([identifier])).update(secret).update(challenge);
  return `0x${hash.digest("hex")}`;
}

/** The message of what `login` rejects with, or "logged in". */
export async function loginResult(options: ProbeOptions): Promise<string> {
  try {
    const probe = await Probe.login(options);
    probe.close();
    return "logged in";
  } catch (error) {
    return (error as Error).message;
  }
}
