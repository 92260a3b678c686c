/** What can go wrong, and when: at a moment of the run. */
import type { Host, Process, World } from "./world.ts";

export const faultKinds = [
  "kill it",
  "kill command",
  "kill drive",
  "kill role",
  "kill engine",
  "kill tgtd",
  "power",
  "power, lossy",
  "cut",
  "cut silently",
  "interrupt",
] as const;
export type FaultKind = (typeof faultKinds)[number];

export interface Fault {
  readonly kind: FaultKind;
  /** The number of the moment. */
  readonly moment: number;
  readonly host: string;
  readonly other: string;
  /** Until the link is mended, or the power is back. */
  readonly forMs: number;
}

/** Most of what can go wrong is in the set-up and the hand-off, which come early; the rest comes any time. */
const [earlyMoments, allMoments] = [450, 1_200];

export function chooseFaults(world: World, count: number): Fault[] {
  const names = [...world.hosts.keys()];
  return Array.from({ length: count }, () => {
    const host = world.pick(names);
    return {
      kind: world.below(3) === 0 ? "kill it" : world.pick(faultKinds),
      moment: 1 + world.below(world.below(3) > 0 ? earlyMoments : allMoments),
      host,
      other: world.pick(names.filter((name) => name !== host)),
      forMs: world.pick([200, 1_000, 5_000, 25_000, 60_000]),
    };
  });
}

/** `process`: the one that is in the moment. `onPower`: a host has lost its power. */
export function strike(world: World, fault: Fault, process: Process, onPower: (host: Host) => void): void {
  const { kind, forMs } = fault;
  const host = world.host(fault.host);
  const other = world.host(fault.other);
  world.say(`FAULT ${kind} (${process.host.name} ${process.kind} ${process.pid})`);
  switch (kind) {
    case "kill it":
      return kill(world, process);
    case "kill command":
    case "kill drive":
    case "kill role":
    case "kill engine":
    case "kill tgtd": {
      const all = [...world.hosts.values()].flatMap((each) => [...each.processes.values()]);
      return all.filter((each) => each.kind === kind.slice(5)).forEach((each) => kill(world, each));
    }
    case "power":
    case "power, lossy":
      if (!host.isUp) return;
      onPower(host);
      world.powerOff(host, kind !== "power");
      return world.after(forMs, () => world.powerOn(host));
    case "cut":
    case "cut silently":
      world.cut(host, other, kind !== "cut");
      return world.after(forMs, () => world.mend(host, other));
    case "interrupt":
      for (const each of [...host.processes.values()]) if (each.kind === "command") world.interrupt(each);
      return;
  }
}

function kill(world: World, process: Process): void {
  // Who uses the disk is not what is tested.
  if (process.kind !== "guest") world.end(process, "killed");
}
