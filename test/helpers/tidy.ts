/**
 * The house rules, each a function from files to what is wrong with them (one line each, none if all is
 * well). Pure, so that each rule is tested with files that break it. What needs a real parser (`any` in every
 * shape, unused names) is left to deno lint and tsc.
 */
import { posix } from "node:path";

export interface SourceFile {
  /** Relative to the project's folder, with `/`. */
  readonly path: string;
  readonly text: string;
}

export type Rule = (files: readonly SourceFile[]) => string[];

export interface Import {
  readonly specifier: string;
  /** Gone at run time: `import type`, `export type`. (`import { type A }` still loads the file.) */
  readonly isType: boolean;
}

/** The imports and re-exports of a file, those of `import("…")` with a constant name too. */
export function importsOf(text: string): Import[] {
  const found: Import[] = [];
  const statement = /^(?:import|export)(\s+type\b)?(?:[^;"'`]*?\bfrom)?\s*["']([^"']+)["']/gm;
  for (const [, type, specifier] of text.matchAll(statement)) {
    found.push({ specifier: specifier!, isType: type !== undefined });
  }
  for (const line of codeLines(text)) {
    for (const [, specifier] of line.matchAll(/\bimport\(\s*["']([^"']+)["']\s*\)/g)) {
      found.push({ specifier: specifier!, isType: false });
    }
  }
  return found;
}

/** The lines without comments; one that is all comment becomes empty. */
function codeLines(text: string): string[] {
  return text.split("\n").map((line) =>
    /^\s*(?:\/\/|\/\*|\*)/.test(line) ? "" : line.replace(/\s\/\/ .*/, "")
  );
}

const isRelative = (specifier: string) => specifier.startsWith(".");
const resolve = (from: string, specifier: string) => posix.join(posix.dirname(from), specifier);
const isSource = ({ path }: SourceFile) => path.startsWith("src/") && path.endsWith(".ts");
const isTestFile = ({ path }: SourceFile) => path.endsWith(".test.ts");
const isCode = ({ path }: SourceFile) => path.endsWith(".ts");

/** A rule about single files that looks at each import. */
function perImport(judge: (file: SourceFile, imported: Import) => string | undefined): Rule {
  return (files) =>
    files.filter(isCode).flatMap((file) =>
      importsOf(file.text).flatMap((imported) => {
        const problem = judge(file, imported);
        return problem === undefined ? [] : [`${file.path}: ${problem}`];
      })
    );
}

/** A rule about single lines. */
function perLine(
  applies: (file: SourceFile) => boolean,
  pattern: RegExp,
  problem: string,
  lines: (text: string) => string[] = (text) => text.split("\n"),
): Rule {
  return (files) =>
    files.filter(applies).flatMap(({ path, text }) =>
      lines(text).flatMap((line, index) => pattern.test(line) ? [`${path}:${index + 1}: ${problem}`] : [])
    );
}

// --- purity ---

/** What a pure file may load: nothing that touches a socket, a file, a process, a terminal or the time. */
const pureModules = [
  "node:buffer",
  "node:crypto",
  "node:path",
  "node:util",
  "valibot",
  "cbor-x/index-no-eval",
];

/** Whether a file's first comment says "Pure", as a sentence or at the start of one. */
export function saysPure(text: string): boolean {
  return /\bPure\b/.test(/^\/\*\*[^]*?\*\//.exec(text)?.[0] ?? "");
}

/** Names of files that turn bytes or text into values, or values into those. */
const codecName =
  /(?:^|[/-])(?:arguments|decoder|frames|handshake|message|messages|parse|pdu|protocol|replies)\.ts$/;

/** A codec is pure, and says so, which is what the other rules of purity go by. */
export const codecsSayPure: Rule = (files) =>
  files.filter((file) => isSource(file) && codecName.test(file.path) && !saysPure(file.text))
    .map(({ path }) => `${path}: is a codec by its name; its first comment has to say "Pure."`);

/**
 * A file that calls itself pure loads only what is pure, by itself and through the files it imports. The
 * search ends at other rooms' doors, behind which everything is: what is taken from there may be pure.
 */
export const pureFilesStayPure: Rule = (files) => {
  const byPath = new Map(files.map((file) => [file.path, file]));
  return files.filter((file) => isSource(file) && saysPure(file.text)).flatMap(({ path }) => {
    const way = wayToImpurity([path], byPath, new Set());
    return way === undefined ? [] : [`${way.join(" → ")}: the first one says that it is pure`];
  });
};

/** How the last file of `way` gets to a module that is not pure. */
function wayToImpurity(
  way: readonly string[],
  byPath: ReadonlyMap<string, SourceFile>,
  seen: Set<string>,
): string[] | undefined {
  const from = way.at(-1)!;
  for (const { specifier, isType } of importsOf(byPath.get(from)?.text ?? "")) {
    if (isType || pureModules.includes(specifier)) continue;
    if (!isRelative(specifier)) return [...way, specifier];
    const path = resolve(from, specifier);
    if (seen.has(path) || (path.endsWith("/mod.ts") && roomOf(path) !== roomOf(way[0]!))) continue;
    seen.add(path);
    const found = wayToImpurity([...way, path], byPath, seen);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** A pure file is given the time and its surroundings; it does not look for them. */
export const pureFilesAskNobody: Rule = perLine(
  (file) => isSource(file) && saysPure(file.text),
  /\b(?:process\.(?!nextTick)|Deno\.|setTimeout\(|setInterval\(|Date\.now\(|performance\.now\()/,
  "says it is pure, but asks the process or the clock",
  codeLines,
);

// --- rooms ---

/** The rooms from the bottom up: each may import those of lower lines, never one of its own line. */
const layers = [
  ["lib"],
  ["rpc", "nbd-server", "iscsi-initiator"],
  ["ssh"],
  ["engine", "node-iscsi-target", "report"],
  ["role"],
  ["migration", "doctor"],
  ["demo"],
  ["demo"],
  ["cli"],
  ["main.ts"],
];
/** Beside each room's mod.ts: the contract that the NBD server's device fulfils. `lib` is all doors. */
const otherDoors = ["src/nbd-server/device.ts"];

const layerOf = (room: string) => layers.findIndex((rooms) => rooms.includes(room));
const roomOf = (path: string) => path.split("/")[1]!;

/** Imports point downwards between rooms, and go through the other room's door. */
export const importsPointDownwards: Rule = (files) => [
  ...files.filter((file) => isSource(file) && layerOf(roomOf(file.path)) < 0)
    .map(({ path }) => `${path}: the room has no place among the layers (test/helpers/tidy.ts)`),
  ...perImport((file, { specifier }) => {
    if (!isRelative(specifier)) return undefined;
    const path = resolve(file.path, specifier);
    if (!path.startsWith("src/")) return undefined;
    const [from, to] = [roomOf(file.path), roomOf(path)];
    if (from === to) return undefined;
    if (layerOf(to) >= layerOf(from)) return `imports ${path}, which is not below it`;
    const isDoor = to === "lib" || path === `src/${to}/mod.ts` || otherDoors.includes(path);
    return isDoor ? undefined : `imports ${path} past the door of ${to}`;
  })(files.filter(isSource)),
];

/** No file imports itself by way of others, types included. */
export const noCycles: Rule = (files) => {
  const graph = new Map(
    files.filter(isCode).map(({ path, text }) => [
      path,
      importsOf(text).map(({ specifier }) => specifier).filter(isRelative).map((to) => resolve(path, to)),
    ]),
  );
  const done = new Set<string>();
  const problems: string[] = [];
  const visit = (path: string, way: readonly string[]) => {
    if (way.includes(path)) {
      problems.push(`${[...way.slice(way.indexOf(path)), path].join(" → ")}: imports go in a circle`);
    } else if (!done.has(path)) {
      for (const to of graph.get(path) ?? []) visit(to, [...way, path]);
      done.add(path);
    }
  };
  for (const path of graph.keys()) visit(path, []);
  return problems;
};

// --- imports ---

export const relativeImportsNameAFile: Rule = (files) => {
  const paths = new Set(files.map(({ path }) => path));
  return perImport((file, { specifier }) => {
    if (!isRelative(specifier)) return undefined;
    if (!/\.(?:ts|json)$/.test(specifier)) return `imports ${specifier} without .ts`;
    return paths.has(resolve(file.path, specifier)) ? undefined : `imports ${specifier}, which is not there`;
  })(files);
};

/** The program uses the packages of package.json and Node's own modules by their full names, no others. */
export const onlyDeclaredPackages: Rule = (files) => {
  const manifest = JSON.parse(files.find(({ path }) => path === "package.json")?.text ?? "{}");
  const declared = Object.keys(manifest.dependencies ?? {});
  return perImport((_, { specifier }) => {
    if (isRelative(specifier) || specifier.startsWith("node:")) return undefined;
    const name = specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1).join("/");
    return declared.includes(name) ? undefined : `imports ${specifier}, which package.json does not list`;
  })(files.filter(isSource));
};

export const processesThroughExeca: Rule = (files) =>
  perImport((_, { specifier }) =>
    /^(?:node:)?child_process$/.test(specifier)
      ? "starts processes by itself instead of through execa"
      : undefined
  )(files.filter(isSource));

// --- text ---

const maxLines = 400;

/** Where the time of day is what is asked for: compared with other hosts, with files' times, with a beginning. */
const tellTheTime = [
  "src/cli/session.ts",
  "src/doctor/between.ts",
  "src/role/host.ts",
  "src/role/survey/records.ts",
  "src/role/survey/strays.ts",
];

/** The time of day is set now and then: how long something takes is measured by performance.now(). */
export const durationsAreMonotonic: Rule = perLine(
  (file) => isSource(file) && !tellTheTime.includes(file.path),
  /\bDate\.now\(/,
  "the time of day, which can be set, where performance.now() would do",
  codeLines,
);

export const filesAreShort: Rule = (files) =>
  files.filter(isSource).flatMap(({ path, text }) => {
    const lines = text.trimEnd().split("\n").length;
    return lines > maxLines ? [`${path}: ${lines} lines, where ${maxLines} are the most`] : [];
  });

export const noAny: Rule = perLine(
  isCode,
  /(?:[:<|&,([]|=>|\bas)\s*any\b(?=\s*(?:[\];,)>|&={[]|$))/,
  "the type any",
  (text) => codeLines(text).map((line) => line.replace(/"(?:[^"\\]|\\.)*"|`[^`]*`|'(?:[^'\\]|\\.)*'/g, '""')),
);

export const noOnly: Rule = perLine(isTestFile, /^\s*\w+\.only\(/, "uses .only, which hides failures");

export const testsRun: Rule = (files) =>
  files.filter((file) => isTestFile(file) && !/(?:^|\n)\w+\.run\(\);\s*$/.test(file.text))
    .map(({ path }) => `${path}: does not end with the .run() of its suite`);

export const nothingUnfinished: Rule = perLine(() => true, /\b(?:TOD[O]|FIXM[E])\b/, "something unfinished");

/** No file knows the machine that it was written on, or where its packages were downloaded from. */
export const nothingOfOneMachine: Rule = perLine(
  () => true,
  /(?:^|[^\w.])[/]work[/]|registry[.]npmjs/,
  "mentions a folder or a host of one machine",
);
