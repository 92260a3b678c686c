/** A run that ended badly, for people. */
import type { Result } from "./run.ts";

const maxLines = 60;

/** What was violated, how to run it again, and the end of what happened. */
export function explain({ seed, violations, trace, choices }: Result): string {
  return [
    `seed ${seed}: ${violations.join("; ")}`,
    `again: node test/simulation/migration/replay.ts ${seed}`,
    JSON.stringify(choices),
    ...trace.slice(-maxLines),
  ].join("\n");
}
