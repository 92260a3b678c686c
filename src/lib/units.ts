/**
 * Sizes, rates and durations as people write and read them. Parsers are strict: what they do not accept is a
 * UsageError that names the accepted forms; what they return is a safe integer.
 */
import { UsageError } from "./errors.ts";

const unitLetters = ["", "K", "M", "G", "T", "P"];

const sizeForms = "a number with a unit such as 4096, 64KiB, 500MiB, 1.5GiB or 100M " +
  "(K, M, G, T and P are powers of 1024, like KiB; KB, MB and so on are powers of 1000)";
const rateForms = `${sizeForms}, per second: 100MiB/s or 100M; or off for no limit`;
const durationForms = "numbers with units such as 90s, 5m, 2h, 1h30m, 1d12h or 500ms";

/** Bytes. `1.5GiB`, `100M` (= MiB), `10MB` (= 10^7), `4096`. */
export function parseSize(text: string): number {
  const bytes = sizeOf(text.trim());
  if (bytes === undefined) throw notAccepted(text, "a size", sizeForms);
  return bytes;
}

/** Bytes per second (at least 1), or null for no limit: `off`, `none`, `0`. A size, with or without `/s`. */
export function parseRate(text: string): number | null {
  const word = text.trim();
  if (word === "off" || word === "none") return null;
  const bytes = sizeOf(word.replace(/\/s$/, ""));
  // Whoever means "stop" must not get full speed.
  if (bytes === undefined || bytes === 0) throw notAccepted(text, "a rate", rateForms);
  return bytes;
}

function sizeOf(word: string): number | undefined {
  const match = /^(\d{1,16})(\.\d{1,9})? ?(?:([KMGTPk]?)(iB|B)?|([kmgtp]))$/.exec(word);
  if (match === null) return undefined;
  const [, whole, fraction = "", letter = "", suffix, small = ""] = match;
  const power = unitLetters.indexOf((letter || small).toUpperCase());
  // "5iB" is no unit; half a byte is no size.
  if (power === 0 && (suffix === "iB" || fraction !== "")) return undefined;
  const base = suffix === "B" ? 1000 : 1024;
  const bytes = Math.round(Number(whole + fraction) * base ** power);
  const vanished = bytes === 0 && /[1-9]/.test(whole + fraction);
  return Number.isSafeInteger(bytes) && !vanished ? bytes : undefined;
}

const durationUnits = [["d", 86_400_000], ["h", 3_600_000], ["m", 60_000], ["s", 1000], ["ms", 1]] as const;

/** Milliseconds. `90s`, `1h30m`, `2h`, `500ms`, `1.5h`; larger units first, each at most once. */
export function parseDuration(text: string): number {
  const match =
    /^(?:(\d+(?:\.\d+)?)d)? ?(?:(\d+(?:\.\d+)?)h)? ?(?:(\d+(?:\.\d+)?)m(?:in)?)? ?(?:(\d+(?:\.\d+)?)s)? ?(?:(\d+)ms)?$/
      .exec(text.trim());
  const parts = match?.slice(1) ?? [];
  const given = parts.filter((part) => part !== undefined);
  // A fraction says all of it: 1.5h, but not 1.5h30m.
  const isClear = given.length === 1 || (given.length > 1 && given.every((part) => !part.includes(".")));
  const durationMs = Math.round(
    durationUnits.reduce((sum, [, unitMs], index) => sum + Number(parts[index] ?? 0) * unitMs, 0),
  );
  if (!isClear || !Number.isSafeInteger(durationMs)) throw notAccepted(text, "a duration", durationForms);
  return durationMs;
}

function notAccepted(text: string, what: string, forms: string): UsageError {
  const message = text.trim() === "" ? `${what} is missing` : `"${text}" is not ${what}`;
  return new UsageError(message, { hint: `write ${forms}` });
}

/** `1.5 GiB`, `420 MiB`, `512 B`: three digits or so. `bytes` is at least 0. */
export function formatSize(bytes: number): string {
  let value = bytes;
  let power = 0;
  // 1023.95 would be printed as 1024: it belongs to the next unit.
  while (power < unitLetters.length - 1 && Number(value.toFixed(digitsOf(value))) >= 1024) {
    value /= 1024;
    power++;
  }
  const unit = power === 0 ? "B" : `${unitLetters[power]}iB`;
  return `${trimmed(value, power === 0 ? 0 : digitsOf(value))} ${unit}`;
}

/** `420 MiB/s`; `off` for null, no limit. */
export function formatRate(bytesPerSecond: number | null): string {
  return bytesPerSecond === null ? "off" : `${formatSize(bytesPerSecond)}/s`;
}

/** `350 ms`, `4.2 s`, `45 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`: at most two units. */
export function formatDuration(durationMs: number): string {
  if (durationMs < 999.5) return `${Math.round(durationMs)} ms`;
  if (durationMs < 9950) return `${trimmed(durationMs / 1000, 1)} s`;
  const seconds = Math.round(durationMs / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return pair(Math.floor(seconds / 60), "min", seconds % 60, "s");
  const minutes = Math.round(seconds / 60);
  if (minutes < 24 * 60) return pair(Math.floor(minutes / 60), "h", minutes % 60, "min");
  const hours = Math.round(minutes / 60);
  return pair(Math.floor(hours / 24), "d", hours % 24, "h");
}

function pair(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large} ${largeUnit}` : `${large} ${largeUnit} ${small} ${smallUnit}`;
}

function digitsOf(value: number): number {
  return value < 99.95 ? 1 : 0;
}

function trimmed(value: number, digits: number): string {
  return value.toFixed(digits).replace(/\.0$/, "");
}
