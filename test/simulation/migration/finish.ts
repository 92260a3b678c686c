/**
 * What the user does when all faults are over: looks at the status, does what it says, or `resume` (or `abort`).
 * A few commands must be enough.
 */
import type { CommandEnd, Scenario } from "./scenario.ts";
import { recordsOf } from "./records.ts";
import type { Host } from "./world.ts";

const maxCommands = 8;
const commandMs = 120_000;
/** Heartbeats that were lost, back-off of whoever waits for a host. */
const settleMs = 65_000;
/** Until a command is given again: somebody else may be at work. */
const patienceMs = 15_000;

/** True if no host knows a migration any more. */
export async function finish(scenario: Scenario): Promise<boolean> {
  const { world } = scenario;
  scenario.leaveSources();
  for (const guest of scenario.guests) guest.stop();
  const wasCut = scenario.choices.faults.some(({ kind }) =>
    kind.startsWith("cut") || kind.startsWith("power")
  );
  await world.run(() => scenario.isQuiet(), wasCut ? settleMs : 2_000);
  let advice: string | undefined;
  for (let count = 0; count < maxCommands; count++) {
    const ids = scenario.known();
    if (ids.length === 0) break;
    const id = ids[0]!;
    const host = world.pick(hostsOf(scenario, id));
    const said = await status(scenario, host, id);
    advice = await step(scenario, host, id, advice ?? said);
  }
  // The next command takes what ended out of each host's address book.
  for (const host of world.hosts.values()) await statusOf(scenario, host, {});
  await world.run(() => scenario.isQuiet(), settleMs);
  const left = scenario.known();
  if (left.length > 0) world.violate(`${left.join()} is not over after ${maxCommands} commands`);
  return left.length === 0;
}

function hostsOf({ world }: Scenario, id: string): Host[] {
  return [...world.hosts.values()].filter((host) =>
    recordsOf(host).includes(id) || host.files.find(`/state/hosts/${id}`) !== undefined
  );
}

/** One line that says where it stands; what it tells the user to do, if it does. */
async function status(scenario: Scenario, host: Host, id: string): Promise<string | undefined> {
  const { output, error } = await statusOf(scenario, host, { id });
  const line = output.find((each) => each.includes(`"id":"${id}"`));
  // It may have ended meanwhile.
  if (line === undefined || error !== undefined) {
    if (scenario.known().includes(id)) {
      scenario.world.violate(`status of ${id} on ${host.name} says nothing: ${error}`);
    }
    return undefined;
  }
  const { lastError, phase } = JSON.parse(line) as { lastError: string | null; phase: string };
  scenario.world.say(`  status: ${phase}, ${lastError}`);
  return lastError ?? undefined;
}

async function statusOf(scenario: Scenario, host: Host, args: Record<string, unknown>): Promise<CommandEnd> {
  const command = scenario.start(host, "status", args);
  if (!await scenario.world.run(() => command.isOver, commandMs)) {
    scenario.world.violate(`status on ${host.name} does not end`);
  }
  if (command.error !== undefined && args.id === undefined) {
    scenario.world.violate(`status on ${host.name} throws ${command.error}`);
  }
  return command;
}

/** One command, as advised; returns what its error advises. */
async function step(scenario: Scenario, host: Host, id: string, advice = ""): Promise<string | undefined> {
  const { world, choices } = scenario;
  // Where a disk is on its way back, staying is what needs nobody else.
  const advices = [...advice.matchAll(/dlsm (resume|abort) (\w+)( --force)?/g)];
  const [, advised, target, isForced] = advices[0] ?? [];
  const wants = choices.goal === "aborted" && !scenario.guests.some(({ hasWritten }) => hasWritten)
    ? "abort"
    : "resume";
  const name = advised === "abort" || advised === "resume" ? advised : wants;
  const force = isForced !== undefined && (name === "resume" || scenario.wasForced);
  const named = / --host (\S+)/.exec(advice)?.[1];
  const rawArgs = named === undefined ? [] : ["--host", named];
  const command = scenario.start(host, name, { id: target ?? id, ...force ? { force } : {} }, rawArgs);
  await world.run(() => command.isOver || isWaiting(command), 6_000);
  if (!command.isOver) await help(scenario, host, target ?? id, command);
  const { error } = command;
  const isEnded = error?.message.endsWith("was ended by another command") === true;
  if (error !== undefined && error.hint === undefined && !isEnded) {
    world.violate(`${name}: no hint: ${error.message}`);
  }
  if (error !== undefined) await world.run(() => scenario.isQuiet(), patienceMs);
  return error?.hint;
}

const isWaiting = ({ output }: CommandEnd) => output.at(-1)?.includes('"phase":"attached"') === true;

/** It waits for what only the user can decide. */
async function help(scenario: Scenario, host: Host, id: string, command: CommandEnd): Promise<void> {
  const { world } = scenario;
  const isOver = () => command.isOver;
  for (const name of ["activate", "cutover"] as const) {
    if (isOver()) return;
    const helper = scenario.start(host, name, { id });
    await world.run(() => helper.isOver, commandMs);
    await world.run(isOver, 4_000);
  }
  if (await world.run(isOver, commandMs)) return;
  world.say("it does not end");
  world.interrupt(command.process);
  await world.run(isOver, 30_000);
}
