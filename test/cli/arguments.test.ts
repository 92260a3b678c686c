import { type ArgsDef, parseArgs } from "citty";
import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkArguments, unknownCommand } from "../../src/cli/arguments.ts";
import { UsageError } from "../../src/lib/errors.ts";

const definition: ArgsDef = {
  source: { type: "positional" },
  destination: { type: "positional", required: false },
  handoff: { type: "enum", options: ["now", "manual"] },
  bwlimit: { type: "string", alias: "l" },
  handoffCommand: { type: "string" },
  verify: { type: "boolean", alias: ["v", "check"] },
  json: { type: "boolean", default: true },
};

function accepts(...words: string[]): void {
  checkArguments(definition, words, "dlsm migrate");
}

function refusal(words: string[], of: ArgsDef = definition): UsageError {
  try {
    checkArguments(of, words, "dlsm migrate");
  } catch (error) {
    if (error instanceof UsageError) return error;
    throw error;
  }
  throw new Error(`accepted: ${words.join(" ")}`);
}

function refuses(words: string[], message: RegExp | string, hint?: RegExp | string): void {
  const error = refusal(words);
  assert.match(error.message, message, words.join(" "));
  assert.match(error.message, "dlsm migrate: ");
  if (hint !== undefined) assert.match(error.hint!, hint, words.join(" "));
}

const test = suite("cli: arguments");

test("checkArguments() accepts every form of a flag", () => {
  accepts("a");
  accepts("a", "b");
  accepts("a", "--handoff", "now", "b");
  accepts("--handoff=manual", "a");
  accepts("-l", "10M", "a");
  accepts("--bwlimit=-", "a");
  accepts("--handoff-command", "virsh migrate --live", "a");
  accepts("--handoff-command=--odd", "a");
  accepts("--verify", "--no-json", "a");
  accepts("-v", "a");
  accepts("--check", "--no-check", "a");
  accepts("-", "b");
  accepts("--verify", "--", "--not-a-flag", "-b");
  accepts("--help");
  accepts("-h");
});

test("checkArguments() names the unknown flag and the nearest known one", () => {
  refuses(["a", "--verfiy"], "unknown flag --verfiy", "did you mean --verify?");
  refuses(["a", "--bw-limit=5"], "unknown flag --bw-limit", "did you mean --bwlimit?");
  refuses(["a", "-verify"], "unknown flag -verify", "did you mean --verify?");
  refuses(["a", "--handoffcommand", "x"], "unknown flag --handoffcommand", "--handoff-command?");
  refuses(["a", "--no-jsn"], "unknown flag --no-jsn", "did you mean --no-json?");
  refuses(["a", "--no-handoff"], "unknown flag --no-handoff");
  refuses(["a", "--qqqqqqq"], "unknown flag --qqqqqqq", "see dlsm migrate --help");
  refuses(["a", "-x"], "unknown flag -x");
  refuses(["a", "-vl"], "unknown flag -vl");
  refuses(["a", "--__proto__"], "unknown flag --__proto__");
});

test("checkArguments() refuses extra and missing positionals", () => {
  refuses(["a", "b", "c"], 'unexpected argument "c"', "SOURCE DESTINATION");
  refuses(["a", "--", "b", "--verify"], 'unexpected argument "--verify"');
  refuses([], "SOURCE is missing");
  refuses(["--verify"], "SOURCE is missing");
  assert.match(refusal(["extra"], {}).hint!, "flags only");
});

test("checkArguments() refuses a flag without its value, and takes no flag for one", () => {
  refuses(["a", "--bwlimit"], "--bwlimit needs a value");
  refuses(["a", "--bwlimit="], "--bwlimit needs a value");
  refuses(["a", "--bwlimit", ""], "--bwlimit needs a value");
  refuses(["--bwlimit", "--verify", "a"], "--bwlimit needs a value", "--bwlimit=--verify");
  refuses(["a", "-l"], "-l needs a value");
  refuses(["a", "--bwlimit", "--", "b"], "--bwlimit needs a value");
});

test("checkArguments() refuses a value for a switch, and one stuck to a short flag", () => {
  refuses(["a", "--verify=yes"], "--verify is a switch and takes no value");
  refuses(["a", "--no-json=false"], "--no-json is a switch");
  refuses(["a", "-v=1"], "-v is a switch");
  refuses(["a", "-l=5"], "-l=5 is not understood", "write -l 5");
});

test("checkArguments() refuses a word that is not one of an enum's", () => {
  refuses(["a", "--handoff", "manaul"], '--handoff cannot be "manaul"', 'did you mean "manual"?');
  refuses(["a", "--handoff=later"], '--handoff cannot be "later"', "one of now, manual");
});

test("checkArguments() wants required flags, but not from who asks for help", () => {
  const of: ArgsDef = { allow: { type: "string", required: true }, disk: { type: "positional" } };
  assert.match(refusal(["disk"], of).message, "--allow is missing");
  checkArguments(of, ["disk", "--allow", "10.0.0.5"], "dlsm export");
  checkArguments(of, ["--help"], "dlsm export");
});

test("what checkArguments() accepts, the parser understands as it was meant", () => {
  const value = fc.stringMatching(/^[a-z0-9/:.][a-z0-9/:.=-]{0,8}$/);
  const flag = fc.oneof(
    fc.tuple(fc.constant("bwlimit"), value, fc.constantFrom("=", " ", "-l")),
    fc.tuple(fc.constant("handoffCommand"), value, fc.constantFrom("=", " ")),
    fc.tuple(fc.constant("handoff"), fc.constantFrom("now", "manual"), fc.constantFrom("=", " ")),
    fc.tuple(fc.constant("verify"), fc.boolean(), fc.constant("")),
    fc.tuple(fc.constant("json"), fc.boolean(), fc.constant("")),
  );
  const flags = fc.uniqueArray(flag, { selector: ([name]) => name });
  fc.assert(fc.property(value, fc.option(value), flags, (source, destination, given) => {
    const words = [source];
    const expected: Record<string, unknown> = { source };
    for (const [name, meant, form] of given) {
      expected[name] = meant;
      const typed = name === "handoffCommand" ? "handoff-command" : name;
      if (typeof meant === "boolean") words.push(meant ? `--${typed}` : `--no-${typed}`);
      else if (form === "=") words.push(`--${typed}=${meant}`);
      else words.push(form === "-l" ? "-l" : `--${typed}`, meant);
    }
    if (destination !== null) {
      words.push(destination);
      expected.destination = destination;
    }
    checkArguments(definition, words, "dlsm migrate");
    const parsed = parseArgs(words, definition) as Record<string, unknown>;
    for (const [name, meant] of Object.entries(expected)) assert.is(parsed[name], meant, words.join(" "));
  }));
});

test("checkArguments() of any words ends with acceptance or a UsageError", () => {
  const word = fc.oneof(fc.string(), fc.constantFrom("--", "-", "--bwlimit", "--handoff", "--verify", "="));
  fc.assert(fc.property(fc.array(word, { maxLength: 6 }), (words) => {
    try {
      checkArguments(definition, words, "dlsm migrate");
    } catch (error) {
      assert.instance(error, UsageError);
    }
  }));
});

test("unknownCommand() names the nearest command, or all of them", () => {
  const known = ["migrate", "status", "resume"];
  assert.is(unknownCommand("migarte", known).hint, 'did you mean "migrate"?');
  assert.is(unknownCommand("frobnicate", known).hint, "the commands are migrate, status, resume");
  assert.instance(unknownCommand("x", []), UsageError);
});

test.run();
