/**
 * PostgreSQL and SQLite on an ext4 file system in a volume, while it migrates and is killed: whatever they said is
 * committed is there afterwards, and nothing is half there.
 *
 * DLSM_ROUNDS=N goes on for at least so many kills, in as many migrations as that takes; DLSM_SEED=N repeats what
 * is chosen at random. Give the runner `--timeout SECONDS` for more than a few.
 */
import { join } from "node:path";
import { execa } from "execa";
import { suite } from "uvu";
import { needing } from "../helpers/needs.ts";
import { mountingPrograms, needingMounts } from "./mounted-disk.ts";
import { postgresPrograms } from "./postgres.ts";
import { sqlitePrograms } from "./sqlite.ts";

const test = suite("database");
const programs = ["tgtd", "unshare", ...mountingPrograms, ...postgresPrograms, ...sqlitePrograms];
const withDatabases = await needingMounts(test, needing(test, programs, { root: true }));

/**
 * A namespace whose mounts nobody else's takes over, so that what is unmounted in it is gone; but those that are
 * made from within it, as tgtd's, follow it.
 */
const inNamespace = ["--mount", "sh", "-c", 'mount --make-rshared / && exec "$@"', "sh"];
const runtimeOptions = "Deno" in globalThis ? ["run", "-A"] : ["--disable-warning=ExperimentalWarning"];

withDatabases("commits survive every kill during a migration, and the cut-over", async () => {
  const script = join(import.meta.dirname!, "database-rounds.ts");
  const argv = [...inNamespace, process.execPath, ...runtimeOptions, script];
  await execa("unshare", argv, { stdout: ["inherit", "pipe"] });
});

test.run();
