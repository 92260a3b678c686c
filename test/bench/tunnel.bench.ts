/**
 * What ssh costs: reads from the real tgtd over loopback, plainly and through an sshd, in turn:
 * `node test/bench/tunnel.bench.ts`, or the same under `deno run -A`. Not a test: it prints figures and judges
 * nothing. The rates are this machine's, with both ends of ssh on it; the ratio is what counts.
 */
import { randomBytes } from "node:crypto";
import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Session } from "../../src/iscsi-initiator/mod.ts";
import { connectThrough } from "../../src/ssh/mod.ts";
import { Sshd } from "../helpers/sshd.ts";
import { tempFolder } from "../helpers/temp.ts";
import { Tgtd } from "../iscsi-initiator/tgtd.ts";

const sizeBytes = 256 << 20;
const seconds = 2;
const rounds = 3;

function makeFile(): string {
  const path = join(tempFolder("bench"), "disk.img");
  const fd = openSync(path, "w");
  const piece = randomBytes(1 << 20);
  for (let at = 0; at < sizeBytes; at += piece.length) writeSync(fd, piece, 0, piece.length, at);
  closeSync(fd);
  return path;
}

/** Reads a second, `depth` at once, from place to place. */
async function readsPerSecond(session: Session, lengthBytes: number, depth: number): Promise<number> {
  const pieces = sizeBytes / lengthBytes;
  const startedMs = performance.now();
  let done = 0;
  const worker = async () => {
    const into = new Uint8Array(lengthBytes);
    while (performance.now() < startedMs + seconds * 1000) {
      await session.read((done++ * 7919 % pieces) * lengthBytes, into);
    }
  };
  await Promise.all(Array.from({ length: depth }, worker));
  return done / (performance.now() - startedMs) * 1000;
}

const tgtd = new Tgtd({ file: makeFile() });
const sshd = await Sshd.start();
await tgtd.start();
try {
  const { port, targetName } = tgtd;
  const options = { host: "127.0.0.1", port, targetName, initiatorName: "iqn.2026-01.test:bench" };
  const plain = new Session({ ...options, isidQualifier: 1 });
  const connect = connectThrough(sshd.destination);
  const tunnel = new Session({ ...options, isidQualifier: 2, connect });
  await Promise.all([plain.open(), tunnel.open()]);
  for (const [lengthBytes, depth] of [[256 << 10, 16], [4096, 32], [4096, 1]] as const) {
    const rates = { plain: 0, tunnel: 0 };
    for (let round = 0; round < rounds; round++) {
      rates.plain += await readsPerSecond(plain, lengthBytes, depth) / rounds;
      rates.tunnel += await readsPerSecond(tunnel, lengthBytes, depth) / rounds;
    }
    const text = (rate: number) => `${(rate * lengthBytes / 1e6).toFixed(0)} MB/s, ${rate.toFixed(0)} IOPS`;
    console.log(
      `${lengthBytes / 1024} KiB, depth ${depth}: plain ${text(rates.plain)}; tunnel ${
        text(rates.tunnel)
      }; ` +
        `ratio ${(rates.tunnel / rates.plain).toFixed(2)}`,
    );
  }
  await Promise.all([plain.close(), tunnel.close()]);
} finally {
  await tgtd.kill();
  await sshd.stop();
}
