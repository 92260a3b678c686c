/** How every run has to end: done or cleanly aborted, nothing lost, nothing left behind. */
import { FileNode } from "./file-system.ts";
import type { Scenario } from "./scenario.ts";
import type { Host } from "./world.ts";

export type End = "done" | "aborted" | "never begun";

/** What may stay in a host's folders for ever. */
const keeps = ["/state/host-id", "/state/ended", "/run/dlsm"];
/** What a kill leaves half-made has no name: the next migration sweeps it away, and doctor tells of it. */
const halfMade = /^\/state(\/(source|destination|hosts))?(\/\..*)?$/;

export function checkEnd(scenario: Scenario): End {
  const { world, choices, guests, originals, wentBack, wasForced } = scenario;
  const source = world.host(choices.source).files;
  const destination = world.host(choices.destination).files;
  const hasWritten = guests.some((guest) => guest.hasWritten);
  const isDone = destination.find(scenario.destinationPath(0)) !== undefined;
  guests.forEach((guest, disk) => {
    const from = source.file(scenario.sourcePath(disk));
    const to = destination.find(scenario.destinationPath(disk));
    if (from.isImmutable || from.mode !== 0o640) {
      world.violate(
        `the source is left with mode ${from.mode.toString(8)}${from.isImmutable ? ", immutable" : ""}`,
      );
    }
    const isSourceWhole = from.data.equals(originals[disk]!);
    if (!isSourceWhole && !wentBack) world.violate(`${scenario.sourcePath(disk)} was changed`);
    if (isDone !== (to !== undefined)) world.violate("only some of the disks are done");
    if (to instanceof FileNode) {
      const problems = guest.problems(to.data);
      const isBack = wentBack && guest.problems(from.data).length === 0;
      if (problems.length > 0 && !isBack) problems.forEach((problem) => world.violate(problem));
    } else if (hasWritten && !wasForced) world.violate("what was written after the hand-off was thrown away");
  });
  for (const host of world.hosts.values()) checkNothingLeft(scenario, host);
  if (isDone) return "done";
  return scenario.ids.size === 0 ? "never begun" : "aborted";
}

function checkNothingLeft({ world, choices, sourcePath, destinationPath }: Scenario, host: Host): void {
  for (const { kind, pid, args } of host.processes.values()) {
    world.violate(`left on ${host.name}: process ${pid}, ${kind} ${args.join(" ")}`);
  }
  const disks = Array.from({ length: choices.disks }, (_, disk) => [sourcePath(disk), destinationPath(disk)])
    .flat();
  for (const path of ["/state", "/run", "/data"].flatMap((folder) => host.files.below(folder))) {
    if (halfMade.test(path) && choices.faults.length > 0) continue;
    if (!keeps.includes(path) && !disks.includes(path)) world.violate(`left on ${host.name}: ${path}`);
  }
}
