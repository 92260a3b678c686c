/** `node test/simulation/initiator/replay.ts SEED`: one run of the initiator again, with all that happens. */
import { runSeed, SimulationError } from "./scenario.ts";

const seed = Number(process.argv[2]);
try {
  const { trace, ...outcome } = await runSeed(seed, { trace: true });
  console.log(trace.join("\n"));
  console.log(outcome);
} catch (error) {
  if (!(error instanceof SimulationError)) throw error;
  console.log(error.trace.join("\n"));
  console.error(error.message);
  process.exitCode = 1;
}
