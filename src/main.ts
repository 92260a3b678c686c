import { main } from "./cli/mod.ts";

process.exitCode = await main(process.argv.slice(2));
