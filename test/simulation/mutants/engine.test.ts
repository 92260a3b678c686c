/** That the simulation of the engine finds what it is there for. */
import { suite } from "uvu";
import type * as simulation from "../engine/simulate.ts";
import { mutants } from "./engine.ts";
import { findsEach } from "./plant.ts";

const test = suite("planted bugs of the engine are found");

const copy = {
  room: "src/engine",
  parts: ["src", "test/engine/memory.ts", "test/simulation/engine", "test/simulation/clock.ts"],
  main: "test/simulation/engine/simulate.ts",
};

findsEach<typeof simulation>(
  test,
  { bugs: mutants, copy, budget: 1500 },
  async ({ runSeed }, seed) => (await runSeed(seed)).error?.message,
);

test.run();
