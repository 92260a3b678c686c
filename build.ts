/**
 * Makes dist/dlsm: one executable file that holds the bundled program and the Node it runs on (a single
 * executable application, "SEA"). Run as `npm run build`.
 */
import { build } from "esbuild";
import { execa, ExecaError } from "execa";
import { chmod, copyFile, mkdir, mkdtemp, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";

const root = import.meta.dirname!;
const dist = join(root, "dist");
// The Node of package.json, whichever one runs this file: the code cache fits only the version that made it.
const node = join(root, "node_modules", `node-linux-${process.arch}`, "bin", "node");

await mkdir(dist, { recursive: true });
const work = await mkdtemp(join(dist, ".build-"));
try {
  const main = await bundle(join(work, "dlsm.mjs"));
  const executable = await strippedNode(join(work, "node"));
  const output = await inject(main, executable, join(work, "dlsm"));
  // Renamed into place, so that a dlsm that runs from here keeps its own file.
  await rename(output, join(dist, "dlsm"));
} finally {
  await rm(work, { recursive: true, force: true });
}
const { size } = await stat(join(dist, "dlsm"));
console.log(`dist/dlsm: ${(size / 1e6).toFixed(0)} MB, Node ${(await execa(node, ["--version"])).stdout}`);

async function bundle(outfile: string): Promise<string> {
  await build({
    entryPoints: [join(root, "src", "main.ts")],
    outfile,
    bundle: true,
    platform: "node",
    target: "node26",
    // CommonJS has no top-level await.
    format: "esm",
    // src/lib/self.ts: the program starts itself again as the executable, without a script's name.
    define: { "process.env.DLSM_IS_BUNDLE": '"1"' },
    logLevel: "warning",
  });
  return outfile;
}

/** Symbols are a fifth of Node's size. They go before the program comes in: afterwards the file would break. */
async function strippedNode(copy: string): Promise<string> {
  await copyFile(node, copy);
  await chmod(copy, 0o755);
  try {
    await execa("strip", [copy]);
  } catch (error) {
    if (!(error instanceof ExecaError) || error.code !== "ENOENT") throw error;
    console.log("strip is missing (package binutils): the executable is a fifth bigger than it could be");
  }
  return copy;
}

async function inject(main: string, executable: string, output: string): Promise<string> {
  const config = join(work, "sea.json");
  await writeFile(
    config,
    JSON.stringify({
      main,
      mainFormat: "module",
      executable,
      output,
      useCodeCache: true,
      disableExperimentalSEAWarning: true,
      // node:ffi (src/lib/libc.ts) would warn on each start.
      execArgv: ["--disable-warning=ExperimentalWarning"],
      // NODE_OPTIONS is meant for other programs: it must not change, or stop, this one.
      execArgvExtension: "none",
    }),
  );
  await execa(node, ["--build-sea", config]);
  return output;
}
