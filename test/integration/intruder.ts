/**
 * Somebody who tries to get at an export: run on a host of a test, told on stdin what is known, tells on stdout
 * what every attempt came to. Independent of the project's own initiator on purpose (RFC 7143).
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createConnection, type Socket } from "node:net";

export interface Known {
  readonly address: string;
  readonly port: number;
  readonly targetName: string;
  readonly user: string;
  readonly secret: string;
  /** What the target proves itself with. */
  readonly targetUser: string;
  readonly targetSecret: string;
  /** All bytes that somebody with the secrets once sent, request by request, as base64. */
  readonly recorded: readonly string[];
}

export interface Attempt {
  readonly name: string;
  /** "logged in", "status CLASS/DETAIL", "closed", "silent", "no connection: CODE"; of the last step. */
  readonly outcome: string;
  /** All that the target said, as text. */
  readonly said: string;
  /** Bytes of SCSI data that came. */
  readonly dataBytes: number;
  /** What was sent, as base64. */
  readonly sent: readonly string[];
}

type Keys = Readonly<Record<string, string>>;

const silenceMs = 2_000;
const stage = { security: 0, operational: 1, fullFeature: 3 } as const;

/** One connection; everything on it is remembered. */
class Attacker {
  readonly #socket: Socket;
  #received = Buffer.alloc(0);
  #wake: () => void = () => {};
  #isClosed = false;
  #problem = "closed";
  readonly sent: string[] = [];
  said = "";
  dataBytes = 0;

  constructor({ address: host, port }: Known) {
    this.#socket = createConnection({ host, port });
    this.#socket.on("data", (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#wake();
    });
    this.#socket.on("error", (error: NodeJS.ErrnoException) => {
      this.#problem = error.code === "ECONNRESET" ? "closed" : `no connection: ${error.code}`;
    });
    this.#socket.on("close", () => {
      this.#isClosed = true;
      this.#wake();
    });
  }

  send(header: Buffer, data: Buffer): void {
    header.writeUIntBE(data.length, 5, 3);
    this.sendBytes(Buffer.concat([header, data, Buffer.alloc(-data.length & 3)]));
  }

  sendBytes(bytes: Buffer): void {
    this.sent.push(bytes.toString("base64"));
    this.#socket.write(bytes);
  }

  login(at: number, next: number | undefined, keys: Keys): void {
    const header = Buffer.alloc(48);
    header[0] = 0x43;
    header[1] = (next === undefined ? 0 : 0x80 | next) | at << 2;
    header.set([0x80, 0, 0x66, 0, 0, 0x66], 8); // ISID: random type, nobody else's.
    header.writeUInt32BE(1, 24);
    this.send(header, textOf(keys));
  }

  /** READ(16) of the first MiB of LUN 1. */
  askForData(): void {
    const header = Buffer.alloc(48);
    header.set([0x01, 0xc1], 0);
    header[9] = 1;
    header.writeUInt32BE(7, 16);
    header.writeUInt32BE(1 << 20, 20);
    header.writeUInt32BE(1, 24);
    header[32] = 0x88;
    header.writeUInt32BE(2048, 42);
    this.send(header, Buffer.alloc(0));
  }

  /** SendTargets=All. */
  askForNames(): void {
    const header = Buffer.alloc(48);
    header.set([0x04, 0x80], 0);
    header.writeUInt32BE(8, 16);
    header.writeUInt32BE(0xffffffff, 20);
    header.writeUInt32BE(1, 24);
    this.send(header, textOf({ SendTargets: "All" }));
  }

  /** The next PDU; undefined with what happened instead. */
  async receive(): Promise<{ header: Buffer; keys: Map<string, string> } | string> {
    const header = await this.#take(48);
    if (typeof header === "string") return header;
    const lengthBytes = header.readUIntBE(5, 3);
    const data = await this.#take((lengthBytes + 3) & ~3);
    if (typeof data === "string") return data;
    if ((header[0]! & 0x3f) === 0x25) this.dataBytes += lengthBytes;
    const text = data.subarray(0, lengthBytes).toString("latin1");
    this.said += text;
    return { header, keys: new Map(text.split("\0").map((pair) => pair.split("=", 2) as [string, string])) };
  }

  async #take(lengthBytes: number): Promise<Buffer | string> {
    const deadline = performance.now() + silenceMs;
    while (this.#received.length < lengthBytes) {
      if (this.#isClosed) return this.#problem;
      if (performance.now() > deadline) return "silent";
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, silenceMs / 10);
      });
    }
    const taken = Buffer.from(this.#received.subarray(0, lengthBytes));
    this.#received = this.#received.subarray(lengthBytes);
    return taken;
  }

  /** Takes all that still comes. */
  async listen(): Promise<string> {
    for (;;) {
      const pdu = await this.receive();
      if (typeof pdu === "string") return pdu;
    }
  }

  close(): void {
    this.#socket.destroy();
  }
}

function textOf(keys: Keys): Buffer {
  return Buffer.from(Object.entries(keys).map(([key, value]) => `${key}=${value}\0`).join(""));
}

/** RFC 1994 §4.1, with MD5. */
function response(identifier: string, secret: string, challenge: string): string {
  const bytes = Buffer.from(challenge.replace(/^0x/i, ""), "hex");
  return `0x${
    createHash("md5").update(Buffer.from([Number(identifier)])).update(secret).update(bytes).digest("hex")
  }`;
}

/** The answer's keys, or how the login ended. */
async function answered(attacker: Attacker): Promise<Map<string, string> | string> {
  const pdu = await attacker.receive();
  if (typeof pdu === "string") return pdu;
  const [statusClass, detail] = [pdu.header[36]!, pdu.header[37]!];
  if ((pdu.header[0]! & 0x3f) !== 0x23) return `opcode ${pdu.header[0]! & 0x3f}`;
  return statusClass === 0 ? pdu.keys : `status ${statusClass}/${detail}`;
}

async function steps(attacker: Attacker, ...all: ((keys: Map<string, string>) => void)[]): Promise<string> {
  let keys = new Map<string, string>();
  for (const step of all) {
    step(keys);
    const answer = await answered(attacker);
    if (typeof answer === "string") return answer;
    keys = answer;
  }
  return "logged in";
}

const operational: Keys = { HeaderDigest: "None", DataDigest: "None" };

/** How somebody may try, with or without what only the destination may know. */
function attempts(known: Known): Record<string, (attacker: Attacker) => Promise<string>> {
  const names = {
    InitiatorName: "iqn.2024-01.test:intruder",
    TargetName: known.targetName,
    SessionType: "Normal",
  };
  const { security, operational: next, fullFeature } = stage;
  const chap = (
    attacker: Attacker,
    user: string,
    secret: string,
    first: Keys = names,
    extra: Keys = {},
  ) =>
    steps(
      attacker,
      () => attacker.login(security, undefined, { ...first, AuthMethod: "CHAP" }),
      () => attacker.login(security, undefined, { CHAP_A: "5" }),
      (keys) =>
        attacker.login(security, next, {
          CHAP_N: user,
          CHAP_R: response(keys.get("CHAP_I") ?? "", secret, keys.get("CHAP_C") ?? ""),
          ...extra,
        }),
      () => attacker.login(next, fullFeature, operational),
    );
  const discovery = { InitiatorName: names.InitiatorName, SessionType: "Discovery" };
  return {
    "the secrets": (attacker) => chap(attacker, known.user, known.secret),
    "no authentication": (attacker) =>
      steps(
        attacker,
        () => attacker.login(security, next, { ...names, AuthMethod: "None" }),
        () => attacker.login(next, fullFeature, operational),
      ),
    "no security stage": (attacker) =>
      steps(attacker, () => attacker.login(next, fullFeature, { ...names, ...operational })),
    "from the security stage to the end": (attacker) =>
      steps(attacker, () => attacker.login(security, fullFeature, { ...names, AuthMethod: "None" })),
    "no login": () => Promise.resolve("nothing tried"),
    "discovery before a login": () => Promise.resolve("nothing tried"),
    "no answer to the challenge": (attacker) =>
      steps(
        attacker,
        () => attacker.login(security, undefined, { ...names, AuthMethod: "CHAP" }),
        () => attacker.login(security, undefined, { CHAP_A: "5" }),
        () => attacker.login(security, next, {}),
        () => attacker.login(next, fullFeature, operational),
      ),
    "another secret": (attacker) => chap(attacker, known.user, `${known.secret}x`),
    "an empty secret": (attacker) => chap(attacker, known.user, ""),
    "another user": (attacker) => chap(attacker, "root", known.secret),
    "the target's own account": (attacker) => chap(attacker, known.targetUser, known.targetSecret),
    "what was sent by somebody else before": async (attacker) => {
      for (const bytes of known.recorded) {
        attacker.sendBytes(Buffer.from(bytes, "base64"));
        const answer = await answered(attacker);
        if (typeof answer === "string") return answer;
      }
      return "logged in";
    },
    "the target's answer to its own challenge": async (attacker) => {
      // The challenge of one connection is given back as a challenge on another.
      const other = new Attacker(known);
      try {
        let challenge = new Map<string, string>();
        await steps(
          other,
          () => other.login(security, undefined, { ...names, AuthMethod: "CHAP" }),
          () => other.login(security, undefined, { CHAP_A: "5" }),
          (keys) => challenge = keys,
        ).catch(() => {});
        const back = { CHAP_I: challenge.get("CHAP_I") ?? "1", CHAP_C: challenge.get("CHAP_C") ?? "0x01" };
        return await chap(attacker, known.user, "guess", names, back);
      } finally {
        other.close();
      }
    },
    "discovery without authentication": (attacker) =>
      steps(
        attacker,
        () => attacker.login(security, next, { ...discovery, AuthMethod: "None" }),
        () => attacker.login(next, fullFeature, operational),
      ),
    "discovery at once": (attacker) =>
      steps(attacker, () => attacker.login(next, fullFeature, { ...discovery, ...operational })),
    "discovery with another secret": (attacker) => chap(attacker, known.user, "guess", discovery),
  };
}

async function attempt(
  known: Known,
  name: string,
  go: (attacker: Attacker) => Promise<string>,
): Promise<Attempt> {
  const attacker = new Attacker(known);
  const outcome = await go(attacker);
  // Whatever the answer was, it is tried.
  if (name.startsWith("discovery")) attacker.askForNames();
  else attacker.askForData();
  const end = await attacker.listen();
  attacker.close();
  return {
    name,
    outcome: outcome === "nothing tried" ? end : outcome,
    said: attacker.said,
    dataBytes: attacker.dataBytes,
    sent: attacker.sent,
  };
}

if (import.meta.main) {
  const known: Known = JSON.parse(readFileSync(0, "utf8"));
  const all = Object.entries(attempts(known)).map(([name, go]) => attempt(known, name, go));
  console.log(JSON.stringify(await Promise.all(all)));
}
