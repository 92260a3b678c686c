/**
 * PostgreSQL and SQLite on one file system, both committing all the time, and the record outside of it of what
 * they said is committed.
 */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "../engine/memory.ts";
import type { Ledger, LedgerWriter } from "./ledger-writer.ts";
import { Postgres } from "./postgres.ts";
import { Sqlite } from "./sqlite.ts";

const postgresWriters = [0, 1];

/** Rows looked at after each recovery; few, so that most of them stay where they are, on the source. */
const sampleRows = 300;

interface Load {
  /** Of SQLite, then of PostgreSQL. */
  readonly writers: readonly LedgerWriter[];
  readonly bench: Promise<number>;
}

export class Databases {
  readonly #postgres: Postgres;
  readonly #sqlite: Sqlite;
  readonly #random: Random;
  /** The load that runs, or the last one until what it left has been checked. */
  #load: Load | undefined;
  /** Of each ledger the highest number that is there for certain. */
  #last: readonly number[] = [0, ...postgresWriters.map(() => 0)];
  #benched = 0;

  /** In the file system at `path`; `sockets` is a folder elsewhere that only this one uses. */
  constructor(path: string, sockets: string, random: Random) {
    this.#postgres = new Postgres(join(path, "postgres"), sockets);
    this.#sqlite = new Sqlite(join(path, "sqlite"));
    this.#random = random;
  }

  /** Makes both, without any transaction. */
  async create(): Promise<void> {
    await this.#postgres.create();
    await this.#sqlite.create();
    await this.#postgres.stop();
  }

  /** Begins to recover, and does not wait for it. */
  async launch(): Promise<void> {
    await this.#postgres.launch();
  }

  /** Recovers; throws if anything is not there that was committed before `halt`, or if anything is wrong. */
  async recover(): Promise<void> {
    await this.#postgres.start();
    const ledgers = [
      await this.#sqlite.ledger(),
      ...await Promise.all(postgresWriters.map((number) => this.#postgres.ledger(number))),
    ];
    this.#judge(ledgers);
    this.#benched = await this.#postgres.benched(this.#benched, await (this.#load?.bench ?? 0));
    this.#last = ledgers.map(({ last }) => last);
    this.#load = undefined;
    await this.#postgres.check(this.#sampleOf(Postgres.archiveRows), sampleRows);
    await this.#sqlite.check(this.#sampleOf(Sqlite.archiveRows), sampleRows);
  }

  /** Both begin to commit, until they are halted. */
  load(): void {
    const [sqlite, ...postgres] = this.#last;
    const mode = this.#random.chance(0.5) ? "wal" : "delete";
    const writers = [
      this.#sqlite.writer(sqlite!, mode),
      ...postgresWriters.map((number) => this.#postgres.writer(number, postgres[number]!)),
    ];
    const bench = this.#postgres.bench();
    bench.catch(() => {}); // It is asked for in the end.
    this.#load = { writers, bench };
  }

  /** Transactions that are committed, as far as that has been said. */
  get committed(): number {
    const numbers = this.#load?.writers.map(({ committed }) => committed) ?? this.#last;
    return numbers.reduce((sum, number) => sum + number, this.#benched);
  }

  /** Waits until each of the ledgers has so many transactions more. */
  async more(transactions: number): Promise<void> {
    const { writers } = this.#load!;
    const goals = writers.map(({ committed }) => committed + transactions);
    const deadline = performance.now() + 120_000;
    while (writers.some(({ committed }, at) => committed < goals[at]!)) {
      if (performance.now() > deadline) {
        throw new Error(`never: ${goals} committed; now ${writers.map(({ committed }) => committed)}`);
      }
      await sleep(5);
    }
  }

  /** Nothing of them runs any more, as after a crash of their machine. */
  async halt(): Promise<void> {
    const ending = this.#load?.writers.map((writer) => writer.end());
    await this.#postgres.halt();
    await Promise.all([...ending ?? [], this.#load?.bench]);
  }

  /** In good order: every row, table, index and page. */
  async checkAll(): Promise<void> {
    await this.#postgres.checkAll();
    await this.#sqlite.check(1, Sqlite.archiveRows);
    await this.#postgres.stop();
    await this.#postgres.checkPages();
  }

  #judge(ledgers: readonly Ledger[]): void {
    for (const [at, writer] of this.#load?.writers.entries() ?? []) {
      const problem = writer.judge(ledgers[at]!);
      if (problem !== undefined) throw new Error(`${at === 0 ? "SQLite" : "PostgreSQL"}: ${problem}`);
    }
  }

  #sampleOf(rows: number): number {
    return 1 + this.#random.below(rows - sampleRows);
  }
}
