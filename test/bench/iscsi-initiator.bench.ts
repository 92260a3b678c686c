/**
 * How fast the initiator reads from the real tgtd over loopback: `node test/bench/iscsi-initiator.bench.ts`,
 * or the same under `deno run -A`. Not a test: it prints figures and judges nothing.
 */
import { randomBytes } from "node:crypto";
import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Session } from "../../src/iscsi-initiator/mod.ts";
import { Tgtd } from "../iscsi-initiator/tgtd.ts";
import { tempFolder } from "../helpers/temp.ts";

const sizeBytes = 256 << 20;
const seconds = 3;

function makeFile(): string {
  const path = join(tempFolder("bench"), "disk.img");
  const fd = openSync(path, "w");
  const piece = randomBytes(1 << 20);
  for (let at = 0; at < sizeBytes; at += piece.length) writeSync(fd, piece, 0, piece.length, at);
  closeSync(fd);
  return path;
}

/** Reads `lengthBytes` at a time, `depth` at once, for some seconds, and prints the rate. */
async function measure(
  session: Session,
  lengthBytes: number,
  depth: number,
  isRandom: boolean,
): Promise<void> {
  const pieces = sizeBytes / lengthBytes;
  const endMs = performance.now() + seconds * 1000;
  let done = 0;
  let next = 0;
  const cpu = process.cpuUsage();
  const startedMs = performance.now();
  const worker = async () => {
    const into = new Uint8Array(lengthBytes);
    while (performance.now() < endMs) {
      const piece = isRandom ? Math.floor(Math.random() * pieces) : next++ % pieces;
      await session.read(piece * lengthBytes, into);
      done++;
    }
  };
  await Promise.all(Array.from({ length: depth }, worker));
  const elapsedS = (performance.now() - startedMs) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const perSecond = done / elapsedS;
  const what = `${isRandom ? "random" : "sequential"} ${lengthBytes / 1024} KiB, depth ${depth}`;
  const rate = `${(perSecond * lengthBytes / 1e6).toFixed(0)} MB/s, ${perSecond.toFixed(0)} IOPS`;
  console.log(`${what}: ${rate}, CPU ${((user + system) / 1e4 / elapsedS).toFixed(0)} %`);
}

const tgtd = new Tgtd({ file: makeFile(), digests: true });
await tgtd.start();
try {
  for (const withDigests of [false, true]) {
    console.log(withDigests ? "header and data digests" : "no digests");
    const session = new Session({
      host: "127.0.0.1",
      port: tgtd.port,
      targetName: tgtd.targetName,
      initiatorName: "iqn.2026-01.test:bench",
      isidQualifier: 1,
      headerDigest: withDigests,
      dataDigest: withDigests,
    });
    await session.open();
    await measure(session, 256 << 10, 16, false);
    await measure(session, 256 << 10, 32, false);
    await measure(session, 4096, 32, true);
    await measure(session, 4096, 1, true);
    await session.close();
  }
} finally {
  await tgtd.kill();
}
