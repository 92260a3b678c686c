/** What qemu-io answers to a command. Pure. */

/** qemu-io's word at the start of the line that says that all went well. */
export type Verb = "read" | "wrote" | "discard";

export interface Answer {
  /** As qemu-io measured it: from the request to its answer. */
  readonly latencyMs: number;
  /** What came before: the dump of `read -v`. */
  readonly dump: string;
}

/**
 * An answer ends with
 *
 *     read 4096/4096 bytes at offset 512
 *     4 KiB, 1 ops; 00.00 sec (18.7 MiB/sec and 4808.9 ops/sec)
 *
 * Undefined if it does not: the request failed.
 */
export function parseAnswer(text: string, verb: Verb, offset: number, length: number): Answer | undefined {
  const start = text.lastIndexOf(`${verb} ${length}/${length} bytes at offset ${offset}\n`);
  if (start === -1) return undefined;
  const rate = Number(/\band ([0-9.]+) ops\/sec\)/.exec(text.slice(start))?.[1]);
  if (!(rate > 0)) return undefined;
  return { latencyMs: 1000 / rate, dump: text.slice(0, start) };
}

/**
 * The bytes of a dump: lines of at most 16, as `00000200:  00 01 …  ..`. Undefined if it holds fewer than
 * `length` bytes.
 */
export function parseDump(dump: string, length: number): Buffer | undefined {
  const bytes = Buffer.alloc(length);
  let done = 0;
  for (const line of dump.split("\n")) {
    const start = line.indexOf(":  ") + 3;
    if (start === 2) continue;
    const count = Math.min(16, length - done);
    const digits = line.slice(start, start + 3 * count).replaceAll(" ", "");
    if (bytes.write(digits, done, "hex") !== count) return undefined;
    done += count;
  }
  return done === length ? bytes : undefined;
}
