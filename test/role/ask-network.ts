/** Answers on stdout, as JSON, to the questions in argv: `route ADDRESS` or `probe ADDRESS PORT TIMEOUT_MS`. */
import { findRoute, probePortal } from "../../src/role/network.ts";

const [question, address, port, timeoutMs] = process.argv.slice(2);
const answer = question === "route"
  ? await findRoute(address!)
  : await probePortal(address!, Number(port), Number(timeoutMs));
console.log(JSON.stringify(answer));
