/**
 * A journal: one object that must survive anything, in one file.
 *
 * Layout: 8 bytes "dlsmjrnl", u32 version of the record, u32 length of the payload (both big-endian),
 * 32 bytes SHA-256 over version, length and payload, then the payload: the CBOR map {kind, value}.
 * The file ends where the payload ends.
 */
import { createHash } from "node:crypto";
import * as v from "valibot";
import { readFileLimited, removeFileDurably, writeFileAtomic } from "./atomic-file.ts";
import { decodeCbor, encodeCbor } from "./cbor.ts";
import { errnoCode, FailedError, messageOf, PreconditionError } from "./errors.ts";

const magic = new TextEncoder().encode("dlsmjrnl");
const versionAt = 8;
const lengthAt = 12;
const digestAt = 16;
const headerBytes = 48;
/** Far more than a migration's state takes; keeps a wrong file from being read into memory. */
const maxJournalBytes = 16 * 1024 * 1024;

/** The journal file cannot be used; the message names the path, the hint says what to do. */
export class JournalError extends PreconditionError {
  readonly path: string;

  constructor(path: string, problem: string, hint: string, cause?: unknown) {
    super(`the journal ${path} cannot be used: ${problem}`, { hint, cause });
    this.path = path;
  }
}

export class Journal<T> {
  readonly path: string;
  readonly #kind: string;
  readonly #version: number;
  readonly #validate: (value: unknown, version: number) => T;

  /**
   * `kind` says what the record is ("migration", "volume", …): another kind's file is refused. `version` is
   * the newest version of the record that this program knows, and the one it writes. `validate` is given the
   * value read and the version it was written with, and returns it (brought up to date) or throws.
   */
  constructor(
    path: string,
    kind: string,
    version: number,
    validate: (value: unknown, version: number) => T,
  ) {
    this.path = path;
    this.#kind = kind;
    this.#version = version;
    this.#validate = validate;
  }

  /** The record, or undefined if there is no file. Throws JournalError for a file that cannot be used. */
  read(): T | undefined {
    let bytes: Uint8Array | undefined;
    try {
      bytes = readFileLimited(this.path, maxJournalBytes);
    } catch (error) {
      if (error instanceof RangeError) throw this.#damaged(error.message, error);
      throw new JournalError(
        this.path,
        `it cannot be read (${errnoCode(error) ?? messageOf(error)})`,
        "check the file's owner and permissions, and the health of the disk it is on",
        error,
      );
    }
    if (bytes === undefined) return undefined;
    const version = this.#checkEnvelope(bytes);
    const value = this.#unwrap(bytes.subarray(headerBytes));
    try {
      return this.#validate(value, version);
    } catch (error) {
      throw this.#damaged(`its content makes no sense (${problemOf(error)})`, error);
    }
  }

  /** Stores the record durably. Throws FailedError if that is impossible; the old record is then kept. */
  write(value: T): void {
    const payload = encodeCbor({ kind: this.#kind, value });
    if (headerBytes + payload.length > maxJournalBytes) {
      throw new RangeError(`a journal of ${payload.length} bytes is too large: ${this.path}`);
    }
    const bytes = new Uint8Array(headerBytes + payload.length);
    const view = new DataView(bytes.buffer);
    bytes.set(magic);
    view.setUint32(versionAt, this.#version);
    view.setUint32(lengthAt, payload.length);
    bytes.set(payload, headerBytes);
    bytes.set(digestOf(bytes), digestAt);
    this.#change("written", () => writeFileAtomic(this.path, bytes));
  }

  /** Removes the file durably; no error if there is none. Throws FailedError if that is impossible. */
  remove(): void {
    this.#change("removed", () => removeFileDurably(this.path));
  }

  /** Checks everything but the payload's meaning; returns the record's version. */
  #checkEnvelope(bytes: Uint8Array): number {
    if (!startsWith(bytes, magic.subarray(0, Math.min(magic.length, bytes.length)))) {
      throw new JournalError(
        this.path,
        "it is not a dlsm journal",
        "something else wrote this file: move it away and check what uses the state folder",
      );
    }
    if (bytes.length < headerBytes) throw this.#damaged(`it ends after ${bytes.length} bytes`);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const length = bytes.length - headerBytes;
    if (view.getUint32(lengthAt) !== length) {
      throw this.#damaged(`it holds ${length} of ${view.getUint32(lengthAt)} bytes`);
    }
    if (!startsWith(bytes.subarray(digestAt), digestOf(bytes))) throw this.#damaged("its checksum is wrong");
    const version = view.getUint32(versionAt);
    if (version > this.#version) {
      throw new JournalError(
        this.path,
        `a newer dlsm wrote it (record version ${version}, this one knows up to ${this.#version})`,
        "install that newer dlsm on this host again and go on with it",
      );
    }
    return version;
  }

  #unwrap(payload: Uint8Array): unknown {
    let record: unknown;
    try {
      record = decodeCbor(payload);
    } catch (error) {
      throw this.#damaged(messageOf(error), error);
    }
    if (typeof record !== "object" || record === null || !("kind" in record) || !("value" in record)) {
      throw this.#damaged("it holds no record");
    }
    if (record.kind !== this.#kind) {
      throw new JournalError(
        this.path,
        `it holds a ${JSON.stringify(record.kind)} record where a ${JSON.stringify(this.#kind)} is expected`,
        "the file was moved or renamed: put it back, or move it away",
      );
    }
    return record.value;
  }

  #damaged(problem: string, cause?: unknown): JournalError {
    return new JournalError(
      this.path,
      `${problem}; the file is damaged`,
      "the disks were not touched; restore the file from a backup, or give the migration up with dlsm abort " +
        "(after the hand-off keep the destination disk: what was written to it is nowhere else)",
      cause,
    );
  }

  #change(what: string, change: () => void): void {
    try {
      change();
    } catch (cause) {
      throw new FailedError(`the journal ${this.path} cannot be ${what}: ${messageOf(cause)}`, {
        hint: "make space or mend the permissions of its folder, then use dlsm resume",
        cause,
      });
    }
  }
}

/** What a record's check says, but not what stands there: that may be a secret, or obeyed by a terminal. */
function problemOf(error: unknown): string {
  if (!v.isValiError(error)) return messageOf(error);
  return `not as it should be: ${v.getDotPath(error.issues[0]) ?? "all of it"}`;
}

/** SHA-256 over all that counts: version, length, payload. */
function digestOf(journal: Uint8Array): Uint8Array {
  return createHash("sha256")
    .update(journal.subarray(versionAt, digestAt))
    .update(journal.subarray(headerBytes))
    .digest();
}

function startsWith(bytes: Uint8Array, start: Uint8Array): boolean {
  return bytes.length >= start.length && start.every((byte, index) => bytes[index] === byte);
}
