/**
 * The real commands, migration and roles, as one module whose files, clock, processes and sockets are simulated.
 * What is replaced is replaced where a module is imported: the code itself is what users run.
 *
 * | replaced                             | by                                            |
 * |--------------------------------------|-----------------------------------------------|
 * | node:fs, node:fs/promises, libc.ts   | files in memory, with power loss              |
 * | the clock, chance, the process       | the world's                                   |
 * | execa, rpc/unix.ts                   | simulated processes                           |
 * | role/local-host.ts, remote-host.ts   | conversations that can be cut                 |
 * | engine/mod.ts, node-iscsi-target     | models of engine and tgtd                     |
 *
 * `changes` plants bugs: in a file of src/, a text for another one.
 */
import { build, type Plugin } from "esbuild";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type * as errors from "../../../src/lib/errors.ts";
import type * as rpc from "../../../src/rpc/mod.ts";
import type { Handlers } from "../../../src/rpc/mod.ts";

interface Command {
  run(given: { args: Record<string, unknown>; rawArgs: string[] }): Promise<unknown>;
}

export interface Code extends
  Record<
    "migrate" | "resume" | "abort" | "activate" | "pause" | "cutover" | "status" | "failback" | "drive",
    Command
  >,
  Pick<typeof rpc, "RpcTimeoutError" | "RpcClosedError" | "NotListeningError" | "RemoteError"> {
  readonly errors: typeof errors;
  roleHandlers(folders: { state: string; run: string }): { handlers: Handlers; close(): Promise<void> };
  stateFolder(): string;
  runFolder(): string;
  engineConfigJournal(folder: string): { read(): unknown };
}

export interface Change {
  /** Below src/. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

const root = join(import.meta.dirname!, "..", "..", "..");
const simulated = (name: string) => pathToFileURL(join(import.meta.dirname!, name)).href;

const entry = `
  export { migrate } from "./src/cli/commands/migrate.ts";
  export { abort, activate, cutover, pause, resume } from "./src/cli/commands/steer.ts";
  export { status } from "./src/cli/commands/status.ts";
  export { failback } from "./src/cli/commands/failback.ts";
  export { drive } from "./src/cli/commands/hidden.ts";
  export { roleHandlers } from "./src/role/handlers.ts";
  export { engineConfigJournal } from "./src/engine/config.ts";
  export { NotListeningError, RemoteError, RpcClosedError, RpcTimeoutError } from "./src/rpc/errors.ts";
  export { runFolder, stateFolder } from "./src/lib/paths.ts";
  export * as errors from "./src/lib/errors.ts";
`;

const modules: readonly (readonly [pattern: RegExp, by: string])[] = [
  [/^node:fs(\/promises)?$/, "node-fs.ts"],
  [/\/libc\.ts$/, "node-fs.ts"],
  [/^node:(os|process|crypto|timers\/promises)$/, "node-rest.ts"],
  [/\/survey\/survey\.ts$|^\.\/network\.ts$/, "node-rest.ts"],
  [/^execa$|\/rpc\/unix\.ts$|^\.\/unix\.ts$/, "processes.ts"],
  [/\/(local-host|remote-host)\.ts$/, "conversation.ts"],
  [/node-iscsi-target\/mod\.ts$/, "target-model.ts"],
];

/** The engine's door: its configuration's form is the real one. */
const engineDoor = `
  export * from ${JSON.stringify(join(root, "src", "engine", "config.ts"))};
  export * from ${JSON.stringify(simulated("engine-maps.ts"))};
  export const runEngine = () => { throw new Error("engine-model.ts runs it"); };
`;

/** Globals of which the code gets the simulated ones, by an import of each file that names them. */
const globals = ["Date", "performance", "process"];

function replacing(changes: readonly Change[]): Plugin {
  return {
    name: "simulation",
    setup({ onResolve, onLoad }) {
      onResolve({ filter: /^file:/ }, ({ path }) => ({ path, external: true }));
      onResolve({ filter: /.*/ }, ({ path, importer }) => {
        if (!importer.startsWith(join(root, "src"))) return undefined;
        // The migration has a network.ts of its own.
        if (path === "./network.ts" && importer.includes("/migration/")) return undefined;
        if (path.endsWith("engine/mod.ts")) return { path: "engine", namespace: "door" };
        const by = modules.find(([pattern]) => pattern.test(path))?.[1];
        return by === undefined ? undefined : { path: simulated(by), external: true };
      });
      onLoad({ filter: /.*/, namespace: "door" }, () => ({ contents: engineDoor, resolveDir: root }));
      onLoad({ filter: /\/src\/.*\.ts$/ }, ({ path }) => ({
        contents: withGlobals(changed(path, changes)),
        loader: "ts",
      }));
    },
  };
}

function changed(path: string, changes: readonly Change[]): string {
  let text = readFileSync(path, "utf8");
  for (const { file, from, to } of changes) {
    if (path !== join(root, "src", file)) continue;
    if (text.split(from).length !== 2) throw new Error(`${file}: not once: ${from}`);
    text = text.replace(from, () => to);
  }
  return text;
}

function withGlobals(text: string): string {
  const used = globals.filter((name) =>
    new RegExp(`\\b${name}\\b`).test(text) && !new RegExp(`^import ${name} `, "m").test(text)
  );
  return `${text}\nimport { ${used.join(", ")} } from ${JSON.stringify(simulated("node-rest.ts"))};\n`;
}

export async function loadCode(changes: readonly Change[] = []): Promise<Code> {
  for (const { file } of changes) readFileSync(join(root, "src", file));
  const folder = mkdtempSync(join(tmpdir(), "dlsm-simulation-"));
  try {
    const outfile = join(folder, "code.mjs");
    await build({
      stdin: { contents: entry, resolveDir: root, loader: "ts" },
      bundle: true,
      format: "esm",
      platform: "node",
      outfile,
      plugins: [replacing(changes)],
      banner: {
        js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);',
      },
      logLevel: "warning",
    });
    return await import(pathToFileURL(outfile).href);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
