/** The command line: finds the command, checks its arguments strictly, runs it, and gives the exit code. */
import { stripVTControlCharacters } from "node:util";
import { type ArgsDef, renderUsage, runCommand, type SubCommandsDef } from "citty";
import { DlsmError, exitCodes, PreconditionError, refusalOf, UsageError } from "../lib/errors.ts";
import { version } from "../lib/version.ts";
import { createReporter } from "../report/mod.ts";
import { checkArguments, unknownCommand } from "./arguments.ts";
import { attach, exportCommand, release } from "./commands/by-hand.ts";
import { demo } from "./commands/demo.ts";
import { doctor } from "./commands/doctor.ts";
import { drive, engine, role } from "./commands/hidden.ts";
import { failback } from "./commands/failback.ts";
import { migrate } from "./commands/migrate.ts";
import { status } from "./commands/status.ts";
import { abort, activate, cutover, limit, pause, resume, verify } from "./commands/steer.ts";

/** A command with whatever arguments: citty has no other name for it. */
type Command = Exclude<SubCommandsDef[string], Promise<unknown> | (() => unknown)>;

const commands: Readonly<Record<string, Command>> = {
  migrate,
  status,
  activate,
  pause,
  resume,
  limit,
  cutover,
  failback,
  abort,
  verify,
  export: exportCommand,
  attach,
  release,
  doctor,
  demo,
};
const hidden: Readonly<Record<string, Command>> = { engine, drive, role };

/** Known to the design, not to this version. */
const notBuilt: Readonly<Record<string, { readonly what: string; readonly instead: string }>> = {
  rebalance: {
    what: "rebalancing pools",
    instead: "move single disks with dlsm migrate",
  },
};

/** Runs one command line; returns the exit code. */
export async function main(rawArgs: readonly string[]): Promise<number> {
  const isJson = rawArgs.includes("--json");
  try {
    return await run(rawArgs);
  } catch (cause) {
    const error = refusalOf(cause) ?? cause;
    createReporter(isJson).error(error);
    return error instanceof DlsmError ? error.exitCode : exitCodes.failed;
  }
}

async function run([name, ...rest]: readonly string[]): Promise<number> {
  if (name === undefined || name === "--help" || name === "-h" || (name === "help" && rest.length === 0)) {
    process.stdout.write(overview());
    return name === undefined ? exitCodes.usage : exitCodes.done;
  }
  if (name === "help") return await run([...rest, "--help"]);
  if (name === "--version" || name === "-V") {
    process.stdout.write(`dlsm ${version}\n`);
    return exitCodes.done;
  }
  if (name.startsWith("-")) {
    throw new UsageError(`${name} where a command is expected`, {
      hint: "write dlsm COMMAND first; see dlsm --help",
    });
  }
  const command = find(commands, name) ?? find(hidden, name);
  if (command === undefined) {
    if (Object.hasOwn(notBuilt, name)) {
      const { what, instead } = notBuilt[name];
      throw new UsageError(`${what} (dlsm ${name}) is not built in this version`, { hint: instead });
    }
    throw unknownCommand(name, Object.keys(commands));
  }
  if (rest.includes("--help") || rest.includes("-h")) {
    const usage = await renderUsage(command, { meta: { name: "dlsm" } });
    process.stdout.write(`${plain(usage)}\n`);
    return exitCodes.done;
  }
  checkArguments(command.args as ArgsDef, rest, `dlsm ${name}`);
  checkFolder();
  await runCommand(command, { rawArgs: [...rest] });
  return exitCodes.done;
}

/** Paths and programs are looked up from here. Throws PreconditionError where the user may not be. */
function checkFolder(): void {
  try {
    process.cwd();
  } catch (cause) {
    throw new PreconditionError("the current directory is gone, or this user may not enter it", {
      hint: "cd to another one, such as /, and give the command again",
      cause,
    });
  }
}

/** Not by index: "constructor" is no command. */
function find(among: Readonly<Record<string, Command>>, name: string): Command | undefined {
  return Object.hasOwn(among, name) ? among[name] : undefined;
}

function overview(): string {
  const width = Math.max(...Object.keys(commands).map((name) => name.length));
  const lines = Object.entries(commands).map(([name, command]) => {
    const { description = "" } = command.meta as { description?: string };
    return `  ${name.padEnd(width)}  ${description}`;
  });
  return [
    `dlsm ${version}: moves a disk that is in use; it can be used at the destination at once`,
    "",
    "  dlsm migrate SOURCE DESTINATION",
    "",
    ...lines,
    "",
    "dlsm COMMAND --help explains a command.",
    "Exit codes: 0 done, 1 failed (can be resumed), 2 usage, 3 a precondition is not met (nothing was changed),",
    "4 interrupted (goes on in the background or with resume), 5 verification found a difference, 6 locked by",
    "another run.",
    "",
  ].join("\n");
}

/** Colour is for terminals, and the spaces that fill columns are for nobody. */
function plain(text: string): string {
  const hasColour = process.stdout.isTTY && !process.env.NO_COLOR;
  return (hasColour ? text : stripVTControlCharacters(text)).replaceAll(/ +$/gm, "").trimEnd();
}
