import { main } from "./cli/mod.ts";

// Whoever reads this may be gone (a closed pipe or terminal); what was asked for is done all the same.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});

process.exitCode = await main(process.argv.slice(2));
