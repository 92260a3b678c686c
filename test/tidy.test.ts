/** Holds the house rules (helpers/tidy.ts): each on samples that break it, then all on the project. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import * as tidy from "./helpers/tidy.ts";

const test = suite("tidy");
const checkout = join(import.meta.dirname!, "..");

/** Every file that is a part of the project: not what npm, the build or git made. */
function projectFiles(folder = ""): tidy.SourceFile[] {
  const made = ["node_modules", "dist", ".git"];
  return readdirSync(join(checkout, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
    if (entry.isDirectory()) return made.includes(entry.name) ? [] : projectFiles(path);
    return [{ path, text: readFileSync(join(checkout, path), "utf8") }];
  });
}

/** Files from paths and texts. */
const files = (texts: Record<string, string>): tidy.SourceFile[] =>
  Object.entries(texts).map(([path, text]) => ({ path, text }));

/** Per rule: a project that breaks it, what of it is reported, and one that does not break it. */
const samples: Record<
  string,
  { rule: tidy.Rule; bad: Record<string, string>[]; good: Record<string, string> }
> = {
  "a codec says that it is pure": {
    rule: tidy.codecsSayPure,
    bad: [
      { "src/rpc/frames.ts": `/** Frames. */\nimport { connect } from "node:net";` },
      { "src/rpc/reply-decoder.ts": `import "./a.ts";\n/** Pure. */` },
    ],
    good: { "src/rpc/frames.ts": `/** Frames. Pure. */`, "src/rpc/server.ts": `/** Serves. */` },
  },
  "a file that says it is pure loads nothing that is not": {
    rule: tidy.pureFilesStayPure,
    bad: [
      { "src/engine/a.ts": `/** Codec. Pure. */\nimport { readFile } from "node:fs/promises";` },
      { "src/engine/a.ts": `/**\n * Codec. Pure: no socket.\n */\nimport {\n  connect,\n} from "node:net";` },
      { "src/engine/a.ts": `/** Pure. */\nimport { execa } from "execa";` },
      { "src/engine/a.ts": `/** Pure. */\nexport * from "node:child_process";` },
      { "src/engine/a.ts": `/** Pure. */\nimport "node:fs";` },
      { "src/engine/a.ts": `/** Pure. */\nconst net = await import("node:net");` },
      {
        "src/engine/a.ts": `/** Pure. */\nimport { b } from "./b.ts";`,
        "src/engine/b.ts": `export { c as b } from "../lib/c.ts";`,
        "src/lib/c.ts": `import { open } from "node:fs";`,
      },
    ],
    good: {
      "src/engine/a.ts": `/** Pure. */\nimport { b } from "./b.ts";\nimport type { Socket } from "node:net";`,
      "src/role/a.ts": `/** Pure. */\nimport { schema } from "../engine/mod.ts";`,
      "src/engine/mod.ts": `export * from "./c.ts";`,
      "src/engine/b.ts": `import { Buffer } from "node:buffer";\nimport type { C } from "./c.ts";`,
      "src/engine/c.ts": `/** Reads files. */\nimport { open } from "node:fs";`,
    },
  },
  "a file that says it is pure asks neither process nor clock": {
    rule: tidy.pureFilesAskNobody,
    bad: [
      { "src/engine/a.ts": `/** Pure. */\nconst home = process.env.HOME;` },
      { "src/engine/a.ts": `/** Pure. */\nconst at = Date.now();` },
      { "src/engine/a.ts": `/** Pure. */\nsetTimeout(() => {}, 5);` },
    ],
    good: {
      "src/engine/a.ts": `/** Pure: takes now(), not Date.now(). */\n// process.env is read in b.ts`,
      "src/engine/b.ts": `const home = process.env.HOME;`,
    },
  },
  "imports point downwards, through doors": {
    rule: tidy.importsPointDownwards,
    bad: [
      { "src/engine/a.ts": `import { b } from "../role/mod.ts";` },
      { "src/engine/a.ts": `import type { B } from "../role/mod.ts";` },
      { "src/engine/a.ts": `import { b } from "../node-iscsi-target/mod.ts";` },
      { "src/lib/a.ts": `import { b } from "../rpc/mod.ts";` },
      { "src/role/a.ts": `import { b } from "../engine/volume.ts";` },
      { "src/cli/a.ts": `import { main } from "../main.ts";` },
      { "src/new-room/a.ts": `` },
    ],
    good: {
      "src/main.ts": `import { run } from "./cli/mod.ts";`,
      "src/cli/a.ts": `import { b } from "../migration/mod.ts";\nimport { c } from "../engine/mod.ts";`,
      "src/engine/a.ts": `import { b } from "./b.ts";\nimport type { D } from "../nbd-server/device.ts";`,
      "src/engine/b.ts": `import { b } from "../lib/errors.ts";\nimport * as v from "valibot";`,
      "src/lib/version.ts": `import manifest from "../../package.json" with { type: "json" };`,
    },
  },
  "imports do not go in circles": {
    rule: tidy.noCycles,
    bad: [
      { "src/lib/a.ts": `import { b } from "./b.ts";`, "src/lib/b.ts": `import { a } from "./a.ts";` },
      {
        "src/lib/a.ts": `import { b } from "./b.ts";`,
        "src/lib/b.ts": `export * from "./c.ts";`,
        "src/lib/c.ts": `import type { A } from "./a.ts";`,
      },
    ],
    good: {
      "src/lib/a.ts": `import { b } from "./b.ts";\nimport { c } from "./c.ts";`,
      "src/lib/b.ts": `import { c } from "./c.ts";`,
      "src/lib/c.ts": ``,
    },
  },
  "relative imports name a file that is there, with its ending": {
    rule: tidy.relativeImportsNameAFile,
    bad: [
      { "src/lib/a.ts": `import { b } from "./b";`, "src/lib/b.ts": `` },
      { "src/lib/a.ts": `import { b } from "./b.js";`, "src/lib/b.ts": `` },
      { "test/lib/a.test.ts": `import { b } from "../../src/lib/gone.ts";` },
    ],
    good: { "src/lib/a.ts": `import { b } from "./b.ts";`, "src/lib/b.ts": `` },
  },
  "the program imports only packages of package.json": {
    rule: tidy.onlyDeclaredPackages,
    bad: [
      { "package.json": `{ "dependencies": {} }`, "src/lib/a.ts": `import { execa } from "execa";` },
      {
        "package.json": `{ "devDependencies": { "uvu": "1" } }`,
        "src/lib/a.ts": `import { suite } from "uvu";`,
      },
      { "package.json": `{}`, "src/lib/a.ts": `import { join } from "path";` },
    ],
    good: {
      "package.json": `{ "dependencies": { "cbor-x": "1", "@a/b": "1" } }`,
      "src/lib/a.ts": `import { x } from "cbor-x/index-no-eval";\nimport y from "@a/b/c";\nimport "node:fs";`,
    },
  },
  "processes are started through execa": {
    rule: tidy.processesThroughExeca,
    bad: [
      { "src/lib/a.ts": `import { spawn } from "node:child_process";` },
      { "src/lib/a.ts": `const { spawn } = await import("node:child_process");` },
    ],
    good: { "src/lib/a.ts": `import { execa } from "execa";`, "test/a.ts": `import "node:child_process";` },
  },
  "durations do not depend on the time of day": {
    rule: tidy.durationsAreMonotonic,
    bad: [{ "src/engine/a.ts": "const deadline = Date.now() + 5;" }],
    good: {
      "src/engine/a.ts": "const deadline = performance.now() + 5; // not Date.now()",
      "src/role/host.ts": "return { nowMs: Date.now() };",
      "test/a.test.ts": "Date.now();",
    },
  },
  "no file of the program has more than 400 lines": {
    rule: tidy.filesAreShort,
    bad: [{ "src/lib/a.ts": "x;\n".repeat(401) }],
    good: { "src/lib/a.ts": "x;\n".repeat(400), "test/a.test.ts": "x;\n".repeat(401) },
  },
  "no any": {
    rule: tidy.noAny,
    bad: [
      { "src/lib/a.ts": `function f(x: any): void {}` },
      { "src/lib/a.ts": `const x = y as any;` },
      { "src/lib/a.ts": `const x = new Map<string, any>();` },
      { "test/a.ts": `let x: string | any[];` },
      { "test/a.ts": `type F = () => any;` },
    ],
    good: { "src/lib/a.ts": `/** Not any, really. */\nsay("as any"); // (any of them)\nconst y = any(x);` },
  },
  "no .only": {
    rule: tidy.noOnly,
    bad: [{ "test/a.test.ts": `test.only("x", () => {});` }],
    good: { "test/a.test.ts": `test("x.only(", () => {});` },
  },
  "test files end with .run()": {
    rule: tidy.testsRun,
    bad: [{ "test/a.test.ts": `test.run();\ntest("late", () => {});\n` }, {
      "test/a.test.ts": `// test.run();\n`,
    }],
    good: { "test/a.test.ts": `test("x", () => {});\n\ntest.run();\n`, "test/helper.ts": `` },
  },
  "nothing is left for later": {
    rule: tidy.nothingUnfinished,
    bad: [{ "src/lib/a.ts": "// TO" + "DO: later" }, { "README.md": "FIX" + "ME" }],
    good: { "README.md": "What to do" },
  },
  "no file knows the machine it was written on": {
    rule: tidy.nothingOfOneMachine,
    bad: [
      { "docs/a.md": "cd /wo" + "rk/dlsm" },
      { "src/lib/a.ts": `const path = "/wo` + `rk/x";` },
      { "package-lock.json": `"resolved": "https://registry.npm` + `js.org/x"` },
    ],
    good: { "docs/a.md": `cd dlsm/${"work"}/here` },
  },
};

const project = projectFiles();
for (const [name, { rule, bad, good }] of Object.entries(samples)) {
  test(`${name}: the rule finds what breaks it`, () => {
    for (const sample of bad) assert.is.not(rule(files(sample)).length, 0, JSON.stringify(sample));
    assert.equal(rule(files(good)), []);
  });
  test(`${name}: the project keeps it`, () => assert.equal(rule(project), []));
}

test("the project's files are found", () => {
  for (const path of ["src/main.ts", "test/tidy.test.ts", "package.json", ".ci/run", "install.sh"]) {
    assert.ok(project.some((file) => file.path === path), path);
  }
});

test.run();
