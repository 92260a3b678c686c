/** Data of the options that carry any (NBD proto.md, "Option types"). Undefined means malformed. */
import { Buffer } from "node:buffer";
import { maxStringBytes } from "./protocol.ts";

export interface InfoRequest {
  readonly exportName: string;
  /** Information types asked for, each once. */
  readonly types: ReadonlySet<number>;
}

/** NBD_OPT_INFO and NBD_OPT_GO: name length, name, count, 16-bit types. */
export function parseInfoRequest(data: Uint8Array): InfoRequest | undefined {
  const reader = new Reader(data);
  const exportName = reader.string();
  const count = reader.uint16();
  if (exportName === undefined || count === undefined) return undefined;
  const types = new Set<number>();
  for (let index = 0; index < count; index++) {
    const type = reader.uint16();
    if (type === undefined) return undefined;
    types.add(type);
  }
  return reader.isAtEnd ? { exportName, types } : undefined;
}

export interface MetaContextRequest {
  readonly exportName: string;
  readonly queries: readonly string[];
}

/** NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT: export name, count, queries. */
export function parseMetaContextRequest(data: Uint8Array): MetaContextRequest | undefined {
  const reader = new Reader(data);
  const exportName = reader.string();
  const count = reader.uint32();
  if (exportName === undefined || count === undefined) return undefined;
  const queries: string[] = [];
  for (let index = 0; index < count; index++) {
    const query = reader.string();
    if (query === undefined) return undefined;
    queries.push(query);
  }
  return reader.isAtEnd ? { exportName, queries } : undefined;
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(data: Uint8Array) {
    this.#bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  uint16(): number | undefined {
    return this.#at + 2 > this.#bytes.length ? undefined : this.#bytes.readUInt16BE((this.#at += 2) - 2);
  }

  uint32(): number | undefined {
    return this.#at + 4 > this.#bytes.length ? undefined : this.#bytes.readUInt32BE((this.#at += 4) - 4);
  }

  /** A 32-bit length and so many bytes of UTF-8. */
  string(): string | undefined {
    const length = this.uint32();
    if (length === undefined || length > maxStringBytes || this.#at + length > this.#bytes.length) {
      return undefined;
    }
    return this.#bytes.toString("utf8", this.#at, this.#at += length);
  }
}
