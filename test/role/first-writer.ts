/**
 * Writes a block to a volume the moment a file is not the one it was: its journal is written anew, its socket is
 * removed. Prints "ready", then whether the write was acknowledged. Arguments: the volume's socket, the file.
 */
import { Buffer } from "node:buffer";
import { statSync } from "node:fs";
import { NbdClient } from "../integration/nbd-client.ts";

const [socket, file] = process.argv.slice(2);
const inode = () => statSync(file, { throwIfNoEntry: false })?.ino;
const client = await NbdClient.connect(socket);
const before = inode();
console.log("ready");
const deadline = performance.now() + 30_000;
// No timer: the moment is short.
while (inode() === before && performance.now() < deadline);
const isAcknowledged = await client.write(0, Buffer.alloc(4096, 9)).then(() => true, () => false);
console.log(isAcknowledged ? "acknowledged" : "refused");
process.exit();
