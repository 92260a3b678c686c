/** What everything in one seed's world shares. */
import type { Random } from "../../engine/memory.ts";
import type { SimClock } from "../clock.ts";
import type { Faults } from "./faults.ts";
import type { Model } from "./model.ts";
import type { Scenario } from "./scenario.ts";

export interface Setting {
  readonly scenario: Scenario;
  readonly random: Random;
  readonly clock: SimClock;
  readonly model: Model;
  readonly faults: Faults;
  /** Ends the seed: this must not have happened. */
  fail(error: Error): void;
}
