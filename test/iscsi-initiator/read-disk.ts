/**
 * A process that reads the first 4096 bytes of a disk and says them in base64, or why it cannot; the session's
 * options come on stdin.
 */
import { text } from "node:stream/consumers";
import { LoginError, Session } from "../../src/iscsi-initiator/mod.ts";

const session = new Session(JSON.parse(await text(process.stdin)));
try {
  await session.open();
  const into = new Uint8Array(4096);
  await session.read(0, into);
  console.log(Buffer.from(into).toString("base64"));
} catch (error) {
  console.log(error instanceof LoginError ? error.failure : String(error));
} finally {
  await session.close();
}
