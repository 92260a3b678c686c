/**
 * A PostgreSQL cluster under test, with full durability and page checksums: pgbench's tables, ledgers, and rows
 * that are never touched. Its server runs as the user `postgres`. Needs root.
 */
import { closeSync, mkdirSync, openSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { execa, type Subprocess } from "execa";
import { kill } from "../helpers/dlsm.ts";
import { findProgram } from "../helpers/needs.ts";
import { type Ledger, LedgerWriter } from "./ledger-writer.ts";

export const postgresPrograms = ["initdb", "setpriv", "chown"];

/** All of one version, and not Debian's wrappers. */
const initdb = findProgram("initdb");
const programs = initdb === undefined ? "" : dirname(realpathSync(initdb));
const user = "postgres";

const settings = {
  // These three are the default: without them a crash may cost commits.
  fsync: "on",
  synchronous_commit: "on",
  full_page_writes: "on",
  listen_addresses: "",
  shared_buffers: "16MB",
  // Checkpoints come often, so that more than the log is written.
  checkpoint_timeout: "30s",
  min_wal_size: "2MB",
  max_wal_size: "8MB",
};

const schema = `
  create extension amcheck;
  create table archive(id int primary key, filler text);
  insert into archive select id, repeat(md5(id::text), 30) from generate_series(1, 24000) id;
  create table ledger(writer int, n int, filler text, primary key (writer, n));
  create index on ledger (filler);
`;

/** Indexes that transactions change, each compared with its table. */
const checkIndexes = `
  select bt_index_check(i::regclass, true)
  from unnest('{pgbench_accounts_pkey,pgbench_tellers_pkey,ledger_pkey,ledger_filler_idx}'::text[]) i`;

/** pgbench's transactions add to one row of each of its tables. */
const benchSums = `
  select count(*), coalesce(sum(delta), 0), (select sum(abalance) from pgbench_accounts),
    (select sum(bbalance) from pgbench_branches), (select sum(tbalance) from pgbench_tellers)
  from pgbench_history`;

const benchClients = 2;

export class Postgres {
  static readonly archiveRows = 24_000;
  readonly #data: string;
  readonly #sockets: string;
  readonly #connection: readonly string[];
  #server: Subprocess | undefined;

  /** `data` and `sockets`: folders of the server's, which are made; its log is kept beside its socket. */
  constructor(data: string, sockets: string) {
    this.#data = data;
    this.#sockets = sockets;
    this.#connection = ["--host", sockets, "--username", user];
  }

  /** A new cluster, which runs afterwards. */
  async create(): Promise<void> {
    for (const folder of [this.#data, this.#sockets]) await giveFolder(folder);
    const options = ["--no-sync", "--data-checksums", "--wal-segsize=1", "--auth=trust", "--locale=C"];
    await this.#asServer("initdb", ["-D", this.#data, ...options]);
    await this.start();
    await this.#ask(schema);
    await this.#run("pgbench", ["--initialize", "--quiet", user]);
  }

  /** Recovers if it must; resolves once it can be used. */
  async start(): Promise<void> {
    await this.launch();
    const deadline = performance.now() + 90_000;
    while ((await this.#run("pg_isready", ["--quiet"], false)).exitCode !== 0) {
      if (!this.#runs) throw new Error(`PostgreSQL has ended:\n${this.#log()}`);
      if (performance.now() > deadline) throw new Error(`PostgreSQL does not get ready:\n${this.#log()}`);
      await sleep(20);
    }
  }

  /** Begins to start. */
  async launch(): Promise<void> {
    await giveFolder(this.#sockets);
    // Whoever it names is not there any more; by now another process may have its number.
    rmSync(join(this.#data, "postmaster.pid"), { force: true });
    const parameters = Object.entries({ ...settings, unix_socket_directories: this.#sockets })
      .flatMap(([name, value]) => ["-c", `${name}=${value}`]);
    const log = openSync(this.#logFile, "a");
    this.#server = this.#asServer("postgres", ["-D", this.#data, ...parameters], {
      reject: false,
      stdio: ["ignore", log, log],
    });
    closeSync(log);
  }

  /** In good order. */
  async stop(): Promise<void> {
    await this.#end("SIGINT");
  }

  /** At once, as in a crash of its machine: nothing of it runs any more. */
  async halt(): Promise<void> {
    await this.#end("SIGQUIT");
  }

  /** One of several writers. */
  writer(number: number, last: number): LedgerWriter {
    const argv = [...this.#connection, "-XAtq", "-v", "ON_ERROR_STOP=1"];
    const client = execa(join(programs, "psql"), argv, { reject: false, buffer: false });
    return new LedgerWriter(
      client,
      last,
      (n) => `insert into ledger values (${number}, ${n}, repeat(md5('${n}'), 8)) returning n;`,
    );
  }

  async ledger(writer: number): Promise<Ledger> {
    const answer = await this.#ask(
      `select count(*), coalesce(max(n), 0), count(*) filter (where filler <> repeat(md5(n::text), 8))
       from ledger where writer = ${writer}`,
    );
    const [rows, last, wrong] = answer.split("|").map(Number);
    return { rows: rows!, last: last!, wrong: wrong! };
  }

  /** Runs pgbench until the server is gone; how many transactions were said to be committed. */
  async bench(): Promise<number> {
    const options = ["--no-vacuum", "--time", "3600", "--client", String(benchClients), user];
    const { stdout, stderr } = await this.#run("pgbench", options, false);
    const [, committed] = /transactions actually processed: (\d+)/.exec(stdout) ?? [];
    if (committed !== undefined) return Number(committed);
    if (/connection to server/.test(stderr)) return 0; // It was gone before pgbench came to it.
    throw new Error(`pgbench: ${stdout}\n${stderr}`);
  }

  /** How many transactions of pgbench there are; throws if they are not whole, or not as many as must be. */
  async benched(before: number, committed: number): Promise<number> {
    const answer = await this.#ask(benchSums);
    const [found, ...sums] = answer.split("|").map(Number);
    const most = before + committed + benchClients;
    if (found! < before + committed || found! > most || new Set(sums).size !== 1) {
      throw new Error(`${before + committed} to ${most} transactions of pgbench; there is ${answer}`);
    }
    return found!;
  }

  /** Throws what is wrong with indexes, and with so many of the rows that nobody touches. */
  async check(from: number, rows: number): Promise<void> {
    await this.#ask(checkIndexes);
    const good = await this.#ask(
      `select count(*) from archive where id between ${from} and ${from + rows - 1}
       and filler = repeat(md5(id::text), 30)`,
    );
    if (good !== String(rows)) throw new Error(`${good} of ${rows} rows from ${from} on are as they were`);
  }

  /** Every table and every index. */
  async checkAll(): Promise<void> {
    await this.check(1, Postgres.archiveRows);
    await this.#run("pg_amcheck", ["--heapallindexed", "--rootdescend", user]);
  }

  /** Every page of a cluster that was stopped. */
  async checkPages(): Promise<void> {
    await this.#asServer("pg_checksums", ["--check", "-D", this.#data]);
  }

  get #runs(): boolean {
    const { exitCode, signalCode } = this.#server?.nodeChildProcess ?? {};
    return exitCode === null && signalCode === null;
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    if (this.#runs) kill(this.#server!.pid!, signal);
    await this.#server;
  }

  get #logFile(): string {
    return join(this.#sockets, "log");
  }

  #log(): string {
    return readFileSync(this.#logFile, "utf8").split("\n").slice(-30).join("\n");
  }

  async #ask(sql: string): Promise<string> {
    const { stdout } = await this.#run("psql", ["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]);
    return stdout;
  }

  #run(program: string, args: readonly string[], reject = true) {
    return execa(join(programs, program), [...this.#connection, ...args], { reject, stdin: "ignore" });
  }

  #asServer(program: string, args: readonly string[], options: object = {}) {
    const privileges = ["--reuid", user, "--regid", user, "--clear-groups"];
    return execa("setpriv", [...privileges, join(programs, program), ...args], {
      cwd: this.#sockets,
      ...options,
    });
  }
}

async function giveFolder(path: string): Promise<void> {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  await execa("chown", [user, path]);
}
