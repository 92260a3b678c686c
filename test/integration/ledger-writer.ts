/**
 * A database's command-line client that commits one numbered transaction after the other, and the record of
 * them, outside of the database: what it said is committed must be there for ever, and at most the one that
 * was under way may be there besides.
 */
import { createInterface } from "node:readline";
import type { Subprocess } from "execa";

/** What a database says of its ledger. */
export interface Ledger {
  readonly rows: number;
  /** The highest number; 0 if there is none. */
  readonly last: number;
  /** Rows whose text is not that of their number. */
  readonly wrong: number;
}

export class LedgerWriter {
  readonly #ended: Promise<unknown>;
  #sent = 0;
  #committed = 0;
  #isEnding = false;
  #hasEnded = false;
  #stderr = "";

  /**
   * `client` (not rejecting) runs what it reads on stdin; `transaction(n)` makes it print n alone in a line once n is
   * committed. The numbers go on after `last`.
   */
  constructor(client: Subprocess, last: number, transaction: (n: number) => string) {
    this.#committed = last;
    const next = () => {
      if (this.#isEnding) return void client.stdin!.end();
      this.#sent = this.#committed + 1;
      client.stdin!.write(`${transaction(this.#sent)}\n`);
    };
    // It may end at any moment: its machine crashes.
    client.stdin!.on("error", () => {});
    client.stderr!.on("data", (chunk) => (this.#stderr += chunk));
    client.nodeChildProcess.once("exit", () => (this.#hasEnded = true));
    this.#ended = Promise.all([
      client,
      (async () => {
        for await (const line of createInterface({ input: client.stdout! })) {
          if (line !== String(this.#sent)) continue;
          this.#committed = this.#sent;
          next();
        }
      })(),
    ]);
    next();
  }

  /** The last number that was said to be committed. Throws if the client has ended by itself. */
  get committed(): number {
    if (this.#hasEnded && !this.#isEnding) throw new Error(`the client has ended: ${this.#stderr}`);
    return this.#committed;
  }

  /** Waits until the client has ended; by itself, with what is under way committed, if the database runs. */
  async end(): Promise<void> {
    this.#isEnding = true;
    await this.#ended;
  }

  /** Undefined, or what is wrong with a ledger that was written by nobody but this one, which has ended. */
  judge({ rows, last, wrong }: Ledger): string | undefined {
    if (last < this.#committed) return `${this.#committed} was committed, the last one there is ${last}`;
    if (last > this.#sent) return `${last} is there, and nothing after ${this.#sent} was sent`;
    if (rows !== last) return `${rows} rows up to number ${last}`;
    return wrong > 0 ? `${wrong} rows hold what was never written` : undefined;
  }
}
