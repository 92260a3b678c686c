/** A process that starts a daemon, exports a disk, says the port, and ends; what it shall do comes on stdin. */
import { text } from "node:stream/consumers";
import { startDaemon } from "../../src/node-iscsi-target/mod.ts";

const { folder, portal, disk } = JSON.parse(await text(process.stdin));
const daemon = await startDaemon({ folder, portal });
console.log((await daemon.exportDisk(disk)).portal.port);
