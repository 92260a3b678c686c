/**
 * Strict checking of a command line against a command's definition. The parser itself accepts unknown flags,
 * extra arguments, flags without their value and words for numbers; this refuses them, with the nearest
 * known word where there is one. Pure.
 */
import type { ArgDef, ArgsDef } from "citty";
import { UsageError } from "../lib/errors.ts";
import { nearest } from "../lib/similar.ts";

/** Flags of later versions: what they will do, and what to do without them. */
const notBuilt: Readonly<Record<string, readonly [what: string, instead: string]>> = {
  "--vm": [
    "moving a virtual machine together with its disk",
    "move the machine yourself: with --handoff-command, or with --handoff manual and dlsm activate",
  ],
  "--device": [
    "a device under /dev/mapper",
    "leave it out: the volume is used over NBD, at the address that dlsm prints",
  ],
};

/** Flags that every command has. */
const everywhere: ArgsDef = { help: { type: "boolean", alias: "h" } };

interface Flag {
  readonly name: string;
  readonly definition: ArgDef;
}

/**
 * Throws UsageError unless `rawArgs` (what follows the command's name) are exactly what `definition` allows:
 * `--flag value`, `--flag=value`, `-f value`, `--switch`, `--no-switch`, positionals, and after `--` only
 * positionals. Flags are written in kebab-case, whatever the definition's keys are.
 */
export function checkArguments(definition: ArgsDef, rawArgs: readonly string[], commandName: string): void {
  const checker = new Checker(definition, commandName);
  checker.walk(rawArgs);
  checker.checkComplete();
}

/** The error for a sub command that does not exist. */
export function unknownCommand(word: string, known: Iterable<string>): UsageError {
  const commands = [...known];
  const near = nearest(word, commands);
  return new UsageError(`there is no command "${word}"`, {
    hint: near === undefined ? `the commands are ${commands.join(", ")}` : `did you mean "${near}"?`,
  });
}

class Checker {
  readonly #commandName: string;
  /** By the word that is typed, dashes included. */
  readonly #flags = new Map<string, Flag>();
  readonly #positionals: Flag[] = [];
  readonly #required: Flag[] = [];
  readonly #given = new Set<Flag>();
  #positionalCount = 0;

  constructor(definition: ArgsDef, commandName: string) {
    this.#commandName = commandName;
    for (const [name, argument] of Object.entries({ ...everywhere, ...definition })) {
      const flag: Flag = { name: kebabCase(name), definition: argument };
      if (argument.type === "positional") this.#positionals.push(flag);
      else this.#addFlag(flag);
    }
  }

  walk(rawArgs: readonly string[]): void {
    for (let index = 0; index < rawArgs.length; index++) {
      const word = rawArgs[index];
      if (word === "--") return rawArgs.slice(index + 1).forEach((rest) => this.#positional(rest));
      // A single dash stands for stdin, by custom.
      if (!word.startsWith("-") || word === "-") {
        this.#positional(word);
        continue;
      }
      const equals = word.indexOf("=");
      const typed = equals === -1 ? word : word.slice(0, equals);
      const attached = equals === -1 ? undefined : word.slice(equals + 1);
      const flag = this.#find(typed);
      if (flag.definition.type === "boolean" || flag.definition.type === undefined) {
        this.#checkSwitch(typed, attached);
      } else {
        if (attached !== undefined && !typed.startsWith("--")) {
          throw this.#error(`${word} is not understood`, `write ${typed} ${attached}`);
        }
        const value = attached ?? rawArgs[++index];
        this.#checkValue(flag, typed, value, attached !== undefined);
      }
    }
  }

  checkComplete(): void {
    // Who asks for help need not know the arguments yet.
    if (this.#given.has(this.#flags.get("--help")!)) return;
    const missing = this.#positionals.slice(this.#positionalCount).find(({ definition }) =>
      definition.required !== false && definition.default === undefined
    );
    if (missing !== undefined) throw this.#error(`${missing.name.toUpperCase()} is missing`);
    const flag = this.#required.find((required) => !this.#given.has(required));
    if (flag !== undefined) throw this.#error(`--${flag.name} is missing`);
  }

  #addFlag(flag: Flag): void {
    const { alias = [], required, default: fallback, type } = flag.definition as ArgDef & {
      alias?: string | string[];
    };
    for (const name of [flag.name, ...[alias].flat()]) {
      this.#flags.set(name.length === 1 ? `-${name}` : `--${name}`, flag);
      if (name.length > 1 && type === "boolean") this.#flags.set(`--no-${name}`, flag);
    }
    if (required === true && fallback === undefined) this.#required.push(flag);
  }

  #find(typed: string): Flag {
    const flag = this.#flags.get(typed);
    if (flag === undefined) throw this.#unknownFlag(typed);
    this.#given.add(flag);
    return flag;
  }

  #unknownFlag(typed: string): UsageError {
    if (Object.hasOwn(notBuilt, typed)) {
      const [what, instead] = notBuilt[typed];
      return this.#error(`${what} (${typed}) is not built in this version`, instead);
    }
    // Whether one dash or two, what counts is the word.
    const bare = typed.replace(/^-+/, "");
    const longFlags = [...this.#flags.keys()].filter((flag) => flag.startsWith("--"));
    const near = nearest(bare, longFlags.map((flag) => flag.slice(2)));
    return this.#error(
      `unknown flag ${typed}`,
      near === undefined ? undefined : `did you mean --${near}?`,
    );
  }

  #checkSwitch(typed: string, attached: string | undefined): void {
    if (attached !== undefined) {
      throw this.#error(`${typed} is a switch and takes no value`, `write ${typed} without "=${attached}"`);
    }
  }

  #checkValue(flag: Flag, typed: string, value: string | undefined, isAttached: boolean): void {
    if (value === undefined || value === "") throw this.#error(`${typed} needs a value`);
    // `--bwlimit --verify` is a forgotten value, not one called "--verify".
    if (!isAttached && value.startsWith("-") && value !== "-") {
      throw this.#error(`${typed} needs a value`, `for one that begins with a dash, write ${typed}=${value}`);
    }
    const { type, options } = flag.definition as ArgDef & { options?: readonly string[] };
    if (type !== "enum" || options === undefined || options.includes(value)) return;
    const near = nearest(value, options);
    throw this.#error(
      `${typed} cannot be "${value}"`,
      near === undefined
        ? `it is one of ${options.join(", ")}`
        : `did you mean "${near}"? (${options.join(", ")})`,
    );
  }

  #positional(word: string): void {
    // "host…": any number of them.
    const isRepeatable = this.#positionals.at(-1)?.name.endsWith("…");
    if (this.#positionalCount >= this.#positionals.length && !isRepeatable) {
      const names = this.#positionals.map(({ name }) => name.toUpperCase()).join(" ");
      throw this.#error(
        `unexpected argument "${word}"`,
        names === "" ? "the command takes flags only" : `the command takes ${names}; quote names with spaces`,
      );
    }
    this.#positionalCount++;
  }

  #error(problem: string, hint?: string): UsageError {
    return new UsageError(`${this.#commandName}: ${problem}`, {
      hint: hint ?? `see ${this.#commandName} --help`,
    });
  }
}

function kebabCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
