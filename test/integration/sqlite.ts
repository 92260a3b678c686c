/** A SQLite database under test: a ledger, accounts that its transactions pay from and to, and rows never touched. */
import { execa } from "execa";
import { type Ledger, LedgerWriter } from "./ledger-writer.ts";

export const sqlitePrograms = ["sqlite3", "stdbuf"];

/** How commits are made: in place with a journal that is then deleted, or appended to a log. */
export type JournalMode = "delete" | "wal";

const accounts = 1000;
/** The text that belongs to a number: so many times 8 digits. */
const textOf = (n: string, words: number) =>
  `replace(hex(zeroblob(${words})), '00', printf('%08x', ${n} * 2654435761 % 4294967296))`;

const schema = `
  create table archive(id integer primary key, filler text);
  insert into archive select value, ${textOf("value", 100)} from generate_series(1, 8000);
  create table account(id integer primary key, balance integer);
  insert into account select value, 0 from generate_series(0, ${accounts - 1});
  create table ledger(n integer primary key, filler text);
  create unique index ledger_filler on ledger(filler);
`;

const transaction = (n: number) =>
  `begin immediate;
   update account set balance = balance - ${n % 97} where id = ${n % accounts};
   update account set balance = balance + ${n % 97} where id = ${n * 7 % accounts};
   insert into ledger values (${n}, ${textOf(String(n), 8)});
   commit;
   select ${n};`;

/** Accounts that do not hold what the ledger says. */
const wrongAccounts = `
  with moved(id, amount) as (
    select n % ${accounts}, -(n % 97) from ledger union all select n * 7 % ${accounts}, n % 97 from ledger
  ), total(id, amount) as (select id, sum(amount) from moved group by id)
  select count(*) from account left join total using (id) where balance <> coalesce(amount, 0)`;

export class Sqlite {
  static readonly archiveRows = 8000;
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  async create(): Promise<void> {
    await this.#ask(schema);
  }

  /** With full durability: without "extra" the deletion of a journal, which is the commit, may be lost in a crash. */
  writer(last: number, mode: JournalMode): LedgerWriter {
    const synchronous = mode === "wal" ? "full" : "extra";
    const pragmas = ["-cmd", `pragma journal_mode = ${mode}`, "-cmd", `pragma synchronous = ${synchronous}`];
    // Its output is not held back until a buffer is full.
    const client = execa("stdbuf", ["-oL", "sqlite3", "-batch", "-bail", ...pragmas, this.#path], {
      reject: false,
      buffer: false,
    });
    return new LedgerWriter(client, last, transaction);
  }

  async ledger(): Promise<Ledger> {
    const answer = await this.#ask(
      `select count(*), coalesce(max(n), 0), sum(filler <> ${textOf("n", 8)}) from ledger`,
    );
    const [rows, last, wrong] = answer.split("|").map(Number);
    return { rows: rows!, last: last!, wrong: wrong! };
  }

  /** Throws what is wrong with it, and with so many of the rows that nobody touches. */
  async check(from: number, rows: number): Promise<void> {
    const integrity = await this.#ask("pragma integrity_check");
    if (integrity !== "ok") throw new Error(`SQLite: ${integrity}`);
    const wrong = await this.#ask(wrongAccounts);
    if (wrong !== "0") throw new Error(`SQLite: ${wrong} accounts do not hold what the ledger says`);
    const good = await this.#ask(
      `select count(*) from archive where id between ${from} and ${from + rows - 1}
       and filler = ${textOf("id", 100)}`,
    );
    if (good !== String(rows)) {
      throw new Error(`SQLite: ${good} of ${rows} rows from ${from} on are as they were`);
    }
  }

  async #ask(sql: string): Promise<string> {
    const { stdout } = await execa("sqlite3", ["-batch", "-bail", this.#path, sql], { timeout: 60_000 });
    return stdout;
  }
}
