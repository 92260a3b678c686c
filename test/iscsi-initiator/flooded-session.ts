/**
 * A process whose session is flooded: reads until it is warm, then reads 1 MiB from the block given as argument,
 * and says as JSON how that went. The session's options come on stdin.
 */
import { text } from "node:stream/consumers";
import { Session } from "../../src/iscsi-initiator/mod.ts";
import { fillBlocks } from "./target-disk.ts";

const reasons: string[] = [];
const session = new Session({
  ...JSON.parse(await text(process.stdin)),
  onStateChange: (_, error) => error !== undefined && reasons.length < 10 && reasons.push(error.message),
});

async function isRight(lba: number): Promise<boolean> {
  const into = new Uint8Array(1 << 20);
  const expected = new Uint8Array(into.length);
  await session.read(lba * 512, into);
  fillBlocks(expected, lba);
  return Buffer.compare(into, expected) === 0;
}

await session.open();
for (let round = 0; round < 32; round++) await isRight(round * 2048);
const outcome = await isRight(Number(process.argv[2])).catch(String);
console.log(JSON.stringify({ outcome, reasons }));
await session.close();
