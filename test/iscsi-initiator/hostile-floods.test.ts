/**
 * Targets that send without an end: the initiator's memory stays within a bound, and the read is right once
 * the flood is over. The initiator runs in a process of its own, whose peak the system measures.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { join } from "node:path";
import { execa } from "execa";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { isRead, lbaOf, type Request, ScriptedTarget, type TcpPeer } from "./scripted-target.ts";

const test = suite("targets that flood");

/**
 * What a flood may add to the peak of a process that has read 32 MiB before it. One data segment of 256 KiB at a
 * time is held; the rest is what the garbage collector lets lie until it runs.
 */
const boundBytes = 128 << 20;
/**
 * What is sent in all: if it was kept it would be there to see. A small PDU is several times its size in
 * memory.
 */
const floodBytes = { small: 48 << 20, large: 192 << 20 };

const runtime = "Deno" in globalThis ? ["run", "-A"] : ["--disable-warning=ExperimentalWarning"];
const program = join(import.meta.dirname!, "flooded-session.ts");

interface Flood {
  readonly of: keyof typeof floodBytes;
  /** Gives what is sent again and again, about 1 MiB at a time, while the read waits for its answer. */
  readonly begin: (peer: TcpPeer, request: Request) => () => Buffer;
  /** What the session says of it; nothing if the connection goes on. */
  readonly says: RegExp;
  /** The target takes nothing of what the initiator says to it. */
  readonly isDeaf?: boolean;
}

const nothing = /^$/;
const large = new Uint8Array(256 << 10).fill(0xee);

/** So many PDUs that one write of them is about 1 MiB. */
function many(pdu: Buffer): () => Buffer {
  const drop = Buffer.concat(Array.from({ length: Math.ceil((1 << 20) / pdu.length) }, () => pdu));
  return () => drop;
}

/** Each of them in order, so that nothing is wrong but their number. */
function emptyData(peer: TcpPeer, { tag }: Request): () => Buffer {
  let dataSN = 0;
  return () => Buffer.concat(Array.from({ length: 20_000 }, () => peer.dataIn(tag, 0, dataSN++, noData)));
}

const noData = new Uint8Array();
const floods: Record<string, Flood> = {
  "pings that want no answer": { of: "small", begin: (peer) => many(peer.ping(0xffffffff)), says: nothing },
  "pings that want an answer": {
    of: "small",
    begin: (peer) => many(peer.ping(5)),
    // How many answers pile up before some can leave is the runtime's affair.
    says: /^$|the target does not read/,
  },
  "pings that want an answer, which nobody reads": {
    of: "small",
    begin: (peer) => many(peer.ping(5)),
    says: /the target does not read/,
    isDeaf: true,
  },
  "pings with 256 KiB of data": {
    of: "large",
    begin: (peer) => many(peer.ping(0xffffffff, large)),
    says: nothing,
  },
  "Data-Ins without data": { of: "small", begin: emptyData, says: /out of order/ },
  "asynchronous messages with 256 KiB of data": {
    of: "large",
    begin: (peer) => () => Buffer.concat(Array.from({ length: 4 }, () => peer.asyncMessage(255, large))),
    says: nothing,
  },
};

/** Sends the flood as fast as it is taken; resolves when all was sent, or the connection has ended. */
async function pour({ socket }: TcpPeer, bytes: number, next: () => Buffer): Promise<void> {
  for (let sentBytes = 0; sentBytes < bytes && !socket.destroyed;) {
    const drop = next();
    sentBytes += drop.length;
    if (socket.write(drop)) continue;
    await new Promise<void>((resolve) => {
      const goOn = () => {
        socket.off("drain", goOn).off("close", goOn);
        resolve();
      };
      socket.on("drain", goOn).on("close", goOn);
    });
  }
}

/** The peak since it was last set back (proc(5), clear_refs), in bytes. */
function peakBytes(pid: number): number {
  const [, peakKiB] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))!;
  return Number(peakKiB) * 1024;
}

function setPeakBack(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, "5");
}

/** Where the read begins that is flooded. */
const floodedLba = 500_000;

/** How much the flood raised the peak of the session's process. */
async function growthUnder({ of, begin, says, isDeaf = false }: Flood): Promise<number> {
  const target = new ScriptedTarget();
  await target.start();
  let beforeBytes = Infinity;
  target.hook = (request, peer) => {
    if (!isRead(request) || lbaOf(request) !== floodedLba || peer.index > 1) return false;
    setPeakBack(child.pid!);
    beforeBytes = peakBytes(child.pid!);
    // What the initiator says is taken or not, but not looked at.
    peer.socket.removeAllListeners("data");
    if (isDeaf) peer.socket.pause();
    else peer.socket.resume();
    void pour(peer, floodBytes[of], begin(peer, request)).then(() => peer.answer(request));
    return true;
  };
  const child = execa(process.execPath, [...runtime, program, String(floodedLba)], {
    input: JSON.stringify({ ...target.options, taskTimeoutMs: 300_000 }),
    buffer: false,
  });
  try {
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const { outcome, reasons } = JSON.parse((await lines.next()).value ?? "{}");
    const growthBytes = peakBytes(child.pid!) - beforeBytes;
    assert.is(outcome, true, `${outcome}, ${reasons}`);
    assert.ok(says.test(String(reasons)), `said: ${reasons}`);
    return growthBytes;
  } finally {
    await target.stop();
    await child.catch(() => {});
  }
}

for (const [what, flood] of Object.entries(floods)) {
  test(`${what}: bounded memory, then the right data`, async () => {
    const growth = await growthUnder(flood);
    console.log(`${what}: +${(growth / 2 ** 20).toFixed(1)} MiB`);
    assert.ok(growth < boundBytes, `${growth} bytes more than before`);
  });
}

test.run();
