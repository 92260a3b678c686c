/** What the checks of the targets have in common. */
import * as assert from "uvu/assert";

type ErrorClass = abstract new (...parameters: never[]) => Error;

export type Outcome<T> =
  | { readonly value: T; readonly error?: undefined }
  | { readonly value?: undefined; readonly error: Error };

/** Longer ones flood a log; what strangers sent may be quoted in part only. */
const maxMessageLength = 1200;

/** Runs a decoder that may throw errors of these classes; any other one fails the target. */
export function attempt<T>(declared: readonly ErrorClass[], work: () => T): Outcome<T> {
  const outcome = attemptOwn(declared, work);
  if (outcome.error !== undefined) checkWords(outcome.error.message);
  return outcome;
}

/** The same for what the user has typed, which may be quoted as it is (report/log.ts writes it harmlessly). */
export function attemptOwn<T>(declared: readonly ErrorClass[], work: () => T): Outcome<T> {
  try {
    return { value: work() };
  } catch (error) {
    return { error: declaredError(declared, error) };
  }
}

export async function attemptAsync<T>(
  declared: readonly ErrorClass[],
  work: () => Promise<T>,
): Promise<Outcome<T>> {
  try {
    return { value: await work() };
  } catch (error) {
    const found = declaredError(declared, error);
    checkWords(found.message);
    return { error: found };
  }
}

function declaredError(declared: readonly ErrorClass[], error: unknown): Error {
  const found = declared.find((each) => error instanceof each);
  if (found === undefined || !(error instanceof Error)) throw error;
  assert.ok(error.message !== "", "an error without a message");
  return error;
}

/** Text for a log or a terminal: some, not too much, and without control characters of strangers. */
export function checkWords(text: string): void {
  assert.ok(text.length > 0, "an error without a message");
  assert.ok(text.length <= maxMessageLength, `a message of ${text.length} characters`);
  // deno-lint-ignore no-control-regex
  assert.not.ok(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/.test(text), `control characters in ${JSON.stringify(text)}`);
}

/** Deep equality of plain values, in which bytes are equal whatever their class is. */
export function same(actual: unknown, expected: unknown, what: string): void {
  assert.equal(plain(actual), plain(expected), what);
}

/** Comparable and printable: bytes as hex, maps and sets as arrays, bigints as text. */
export function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return `bytes ${Buffer.from(value).toString("hex")}`;
  if (typeof value === "bigint") return `${value}n`;
  if (Object.is(value, -0)) return 0;
  if (value instanceof Error) return `${value.constructor.name}: ${value.message}`;
  if (value instanceof Map) return plain([...value]);
  if (value instanceof Set) return plain([...value]);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, plain(each)]));
}
