/** A process of its own that starts a daemon in the given folder, says its pid, and ends. */
import { startDaemon } from "../../src/node-iscsi-target/mod.ts";
import { loopback } from "./helpers.ts";

const daemon = await startDaemon({ folder: process.argv[2]!, portal: loopback });
console.log(`${daemon.pid}`);
