/** As `dlsm role`, but whoever asks knows after a fifth of a second that it is silent. */
import { runFolder, stateFolder } from "../../src/lib/paths.ts";
import { serveRoles } from "../../src/role/mod.ts";
import { joinStreams } from "../../src/rpc/mod.ts";

const stream = joinStreams(process.stdin, process.stdout);
await serveRoles({ state: stateFolder(), run: runFolder() }, stream, { heartbeatMs: 50, silentBeats: 400 });
process.exit();
