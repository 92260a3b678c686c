/** What a new user reads first. */
import { stripVTControlCharacters } from "node:util";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { main } from "../../src/cli/mod.ts";

async function stdoutOf(...args: string[]): Promise<{ exitCode: number; lines: string[] }> {
  const { write } = process.stdout;
  let text = "";
  process.stdout.write = (chunk: string | Uint8Array) => {
    text += chunk;
    return true;
  };
  try {
    return { exitCode: await main(args), lines: text.split("\n") };
  } finally {
    process.stdout.write = write;
  }
}

const { lines: overview } = await stdoutOf("--help");
/** Commands and what they do, as the overview lists them. */
const commands = overview.flatMap((line) => {
  const [, name, description] = /^ {2}(\w+) {2,}(\S.*)$/.exec(line) ?? [];
  return name === undefined ? [] : [{ name, description: description! }];
});

const test = suite("cli: help");

test("the overview lists every command for users and none of dlsm's own, with the exit codes", async () => {
  assert.equal(commands.map(({ name }) => name), [
    ...[
      "migrate",
      "status",
      "activate",
      "pause",
      "resume",
      "limit",
      "cutover",
      "failback",
      "abort",
      "verify",
    ],
    ...["export", "attach", "release", "doctor", "demo"],
  ]);
  for (let code = 0; code <= 6; code++) {
    assert.ok(overview.some((line) => line.includes(`${code} `)), `${code}`);
  }
  assert.is(Math.max(...overview.map((line) => line.length)) <= 110, true);
  assert.equal((await stdoutOf("help")).lines, overview);
  assert.equal(await stdoutOf("-h"), { exitCode: 0, lines: overview });
  assert.is((await stdoutOf()).exitCode, 2);
});

for (const { name, description } of commands) {
  test(`dlsm ${name} --help describes every argument and flag, without colour or blanks at the end`, async () => {
    const { exitCode, lines } = await stdoutOf(name!, "--help");
    assert.is(exitCode, 0);
    assert.is(lines[0], `${description} (dlsm ${name})`);
    const text = lines.join("\n");
    assert.is(stripVTControlCharacters(text), text);
    assert.not.match(text, "undefined");
    assert.not.match(text, / $/m);
    for (const line of lines.filter((each) => /^ {2,}(-|[A-Z]+ )/.test(each))) {
      assert.match(line, /^ +\S+(, \S+)? {2,}\S/, `a description: ${line}`);
    }
    for (const positional of /USAGE .*?((?: <[A-Z]+>)*)$/m.exec(text)![1]!.match(/[A-Z]+/g) ?? []) {
      assert.match(text, new RegExp(`^ +${positional} +.*\\(Required\\)$`, "m"));
    }
    assert.equal((await stdoutOf("help", name!)).lines, lines);
  });
}

test.run();
