/** How this program starts itself again, whichever runtime it runs under. */
import { join } from "node:path";

/** A program and its arguments that run `dlsm` with these arguments. */
export function selfCommand(args: readonly string[]): { program: string; args: string[] } {
  const deno = (globalThis as { Deno?: { build: { standalone: boolean } } }).Deno;
  const main = join(import.meta.dirname ?? "", "..", "main.ts");
  if (deno !== undefined) {
    return {
      program: process.execPath,
      args: deno.build.standalone ? [...args] : ["run", "-A", main, ...args],
    };
  }
  // The single binary is one file: there is no script beside it that Node was given.
  if (process.env.DLSM_IS_BUNDLE === "1") return { program: process.execPath, args: [...args] };
  return { program: process.execPath, args: ["--disable-warning=ExperimentalWarning", main, ...args] };
}
