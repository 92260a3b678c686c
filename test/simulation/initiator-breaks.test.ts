/**
 * That the simulation of the initiator finds what it is there for: breaks are planted into a copy of the
 * initiator, one at a time, and each has to be found within its budget of seeds.
 */
import { suite } from "uvu";
import { breaks } from "./initiator/breaks.ts";
import type * as scenario from "./initiator/scenario.ts";
import { findsEach } from "./mutants/plant.ts";

const test = suite("breaks of the initiator are found");

const copy = {
  room: "src/iscsi-initiator",
  parts: ["src/iscsi-initiator", "test/iscsi-initiator", "test/simulation", "test/engine/memory.ts"],
  main: "test/simulation/initiator/scenario.ts",
};

findsEach<typeof scenario>(
  test,
  { bugs: breaks, copy, budget: 120 },
  // A break may also end in an exception out of the initiator.
  ({ runSeed }, seed) => runSeed(seed).then(() => undefined, String),
);

test.run();
