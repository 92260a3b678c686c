/**
 * The server's side of the fixed newstyle handshake, as a pure state machine: bytes in, replies and an
 * outcome out (NBD proto.md, "Fixed newstyle negotiation").
 *
 *     state         wants             then
 *     clientFlags   4 bytes           optionHeader; unknown flags: drop
 *     optionHeader  16 bytes          optionData; longer than we parse: drain; absurd: drop
 *     optionData    its length        reply and optionHeader, or the outcome of ABORT, GO, EXPORT_NAME
 *     drain         its length        an error reply and optionHeader
 *
 * Pure.
 */
import {
  handshakeFlag,
  info,
  magic,
  option as optionCode,
  optionHeaderBytes,
  optionReply,
} from "./protocol.ts";
import { Buffer } from "node:buffer";
import { parseInfoRequest, parseMetaContextRequest } from "./option-data.ts";
import * as replies from "./option-replies.ts";

/** The one export of a server. The empty name always selects it too. */
export interface ExportDescription {
  readonly name: string;
  /** Shown to people; may be empty. */
  readonly description: string;
  readonly sizeBytes: number;
  readonly preferredBlockBytes: number;
  readonly metaContexts: readonly string[];
}

/** What client and server agreed on for the transmission phase. */
export interface Session {
  readonly structuredReplies: boolean;
  /** The contexts that BLOCK_STATUS reports, under the ids the client was given. */
  readonly metaContexts: readonly { readonly id: number; readonly name: string }[];
}

export type HandshakeOutcome =
  | { readonly kind: "more" }
  /** Close the connection when the replies are sent. */
  | { readonly kind: "close" }
  /** Close the connection now. */
  | { readonly kind: "drop"; readonly reason: string }
  /** Go on with the transmission phase; `rest` are bytes of it that came along. */
  | { readonly kind: "transmission"; readonly session: Session; readonly rest: Uint8Array };

export interface HandshakeStep {
  /** To be sent in this order. */
  readonly replies: readonly Uint8Array[];
  readonly outcome: HandshakeOutcome;
}

/** Options up to this size are parsed, longer ones skipped and refused, absurd ones end the connection. */
const maxOptionBytes = 16 * 1024;
const maxDrainedOptionBytes = 1024 * 1024;
/** Nobody needs that many. It also bounds the answers that pile up for a client which does not read them. */
const maxOptions = 256;

type State = "clientFlags" | "optionHeader" | "optionData" | "drain";

const empty = new Uint8Array(0);

/** How a single option ends: the handshake goes on (undefined), or one of these. */
type OptionOutcome = { kind: "close" } | { kind: "drop"; reason: string } | { kind: "start" } | undefined;

export class Handshake {
  readonly #export: ExportDescription;
  #state: State = "clientFlags";
  #wantedBytes = 4;
  #gathered: Uint8Array = new Uint8Array(4);
  #gatheredBytes = 0;
  #option = 0;
  #optionCount = 0;
  #noZeroes = false;
  #structuredReplies = false;
  /** Indexes in `metaContexts`, in their order. */
  #selected: readonly number[] = [];
  #replies: Uint8Array[] = [];

  constructor(exportDescription: ExportDescription) {
    this.#export = exportDescription;
  }

  /** What the server says first. */
  greeting(): Uint8Array {
    return replies.greeting();
  }

  feed(chunk: Uint8Array): HandshakeStep {
    this.#replies = [];
    let at = 0;
    while (at < chunk.length) {
      const count = Math.min(chunk.length - at, this.#wantedBytes - this.#gatheredBytes);
      if (this.#state !== "drain") {
        this.#gathered.set(chunk.subarray(at, at + count), this.#gatheredBytes);
      }
      this.#gatheredBytes += count;
      at += count;
      if (this.#gatheredBytes < this.#wantedBytes) break;
      const outcome = this.#advance(this.#gathered);
      if (outcome !== undefined) return { replies: this.#replies, outcome: this.#end(outcome, chunk, at) };
    }
    return { replies: this.#replies, outcome: { kind: "more" } };
  }

  #end(outcome: Exclude<OptionOutcome, undefined>, chunk: Uint8Array, at: number): HandshakeOutcome {
    if (outcome.kind !== "start") return outcome;
    const metaContexts = this.#selected.map((index) => ({
      id: contextId(index),
      name: this.#export.metaContexts[index],
    }));
    const session = { structuredReplies: this.#structuredReplies, metaContexts };
    return { kind: "transmission", session, rest: chunk.subarray(at) };
  }

  #want(state: State, bytes: number): void {
    this.#state = state;
    this.#wantedBytes = bytes;
    this.#gatheredBytes = 0;
    this.#gathered = state === "drain" ? empty : new Uint8Array(bytes);
  }

  #advance(bytes: Uint8Array): OptionOutcome {
    switch (this.#state) {
      case "clientFlags":
        return this.#clientFlags(bytes);
      case "optionHeader":
        return this.#optionHeader(bytes);
      case "optionData":
        this.#want("optionHeader", optionHeaderBytes);
        return this.#handleOption(bytes);
      case "drain":
        this.#want("optionHeader", optionHeaderBytes);
        this.#refuse(
          isKnown(this.#option) ? optionReply.errorTooBig : optionReply.errorUnsupported,
          `option ${this.#option} is too long`,
        );
        return undefined;
    }
  }

  #clientFlags(bytes: Uint8Array): OptionOutcome {
    const flags = Buffer.from(bytes).readUInt32BE(0);
    // A client that does not claim fixed newstyle but sends its options is served all the same.
    if ((flags & ~(handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes)) !== 0) {
      return { kind: "drop", reason: `unknown client flags 0x${flags.toString(16)}` };
    }
    this.#noZeroes = (flags & handshakeFlag.noZeroes) !== 0;
    this.#want("optionHeader", optionHeaderBytes);
    return undefined;
  }

  #optionHeader(bytes: Uint8Array): OptionOutcome {
    const header = Buffer.from(bytes);
    if (header.readBigUInt64BE(0) !== magic.option) return { kind: "drop", reason: "not an NBD option" };
    if (++this.#optionCount > maxOptions) return { kind: "drop", reason: "too many options" };
    this.#option = header.readUInt32BE(8);
    const length = header.readUInt32BE(12);
    if (length === 0) {
      this.#want("optionHeader", optionHeaderBytes);
      return this.#handleOption(empty);
    }
    if (length <= maxOptionBytes) {
      this.#want("optionData", length);
      return undefined;
    }
    // NBD_OPT_EXPORT_NAME has no way to answer with an error.
    if (length > maxDrainedOptionBytes || this.#option === optionCode.exportName) {
      return { kind: "drop", reason: `option ${this.#option} with ${length} bytes` };
    }
    this.#want("drain", length);
    return undefined;
  }

  #handleOption(data: Uint8Array): OptionOutcome {
    switch (this.#option) {
      case optionCode.exportName:
        return this.#exportName(data);
      case optionCode.abort:
        this.#acknowledge();
        return { kind: "close" };
      case optionCode.list:
        if (data.length > 0) return this.#refuse(optionReply.errorInvalid, "NBD_OPT_LIST has no data");
        this.#replies.push(replies.serverReply(this.#option, this.#export.name, this.#export.description));
        return this.#acknowledge();
      case optionCode.info:
      case optionCode.go:
        return this.#infoOrGo(data);
      case optionCode.structuredReply:
        if (data.length > 0) {
          return this.#refuse(optionReply.errorInvalid, "NBD_OPT_STRUCTURED_REPLY has no data");
        }
        this.#structuredReplies = true;
        return this.#acknowledge();
      case optionCode.listMetaContext:
      case optionCode.setMetaContext:
        return this.#metaContext(data);
      default:
        return this.#refuse(optionReply.errorUnsupported, `option ${this.#option} is not supported`);
    }
  }

  #exportName(data: Uint8Array): OptionOutcome {
    if (!this.#isExport(Buffer.from(data).toString())) return { kind: "drop", reason: "no such export" };
    this.#replies.push(
      replies.exportNameReply(this.#export.sizeBytes, this.#structuredReplies, this.#noZeroes),
    );
    return { kind: "start" };
  }

  #infoOrGo(data: Uint8Array): OptionOutcome {
    const request = parseInfoRequest(data);
    if (request === undefined) return this.#refuse(optionReply.errorInvalid, "malformed option");
    if (!this.#isExport(request.exportName)) return this.#refuseExport();
    const { name, description, sizeBytes, preferredBlockBytes } = this.#export;
    const option = this.#option;
    this.#replies.push(replies.infoExportReply(option, sizeBytes, this.#structuredReplies));
    if (request.types.has(info.name)) this.#replies.push(replies.infoTextReply(option, info.name, name));
    if (request.types.has(info.description) && description !== "") {
      this.#replies.push(replies.infoTextReply(option, info.description, description));
    }
    if (request.types.has(info.blockSize)) {
      this.#replies.push(replies.infoBlockSizeReply(option, preferredBlockBytes));
    }
    this.#acknowledge();
    return option === optionCode.go ? { kind: "start" } : undefined;
  }

  #metaContext(data: Uint8Array): OptionOutcome {
    const isList = this.#option === optionCode.listMetaContext;
    // Even a failed SET replaces what was selected before.
    if (!isList) this.#selected = [];
    const request = parseMetaContextRequest(data);
    if (request === undefined) return this.#refuse(optionReply.errorInvalid, "malformed option");
    if (!this.#structuredReplies) {
      return this.#refuse(optionReply.errorInvalid, "structured replies must be negotiated first");
    }
    if (!this.#isExport(request.exportName)) return this.#refuseExport();
    const found = matchingContexts(this.#export.metaContexts, request.queries, isList);
    if (!isList) this.#selected = found;
    for (const index of found) {
      const id = isList ? 0 : contextId(index);
      this.#replies.push(replies.metaContextReply(this.#option, id, this.#export.metaContexts[index]));
    }
    return this.#acknowledge();
  }

  #isExport(name: string): boolean {
    return name === "" || name === this.#export.name;
  }

  #refuseExport(): undefined {
    return this.#refuse(optionReply.errorUnknown, "no export of that name");
  }

  #acknowledge(): undefined {
    this.#replies.push(replies.reply(this.#option, optionReply.ack));
  }

  #refuse(type: number, message: string): undefined {
    this.#replies.push(replies.errorReply(this.#option, type, message));
  }
}

/** Not zero, so that a client which mixes ids up with the zeroes of NBD_OPT_LIST_META_CONTEXT is noticed. */
function contextId(index: number): number {
  return index + 1;
}

function isKnown(option: number): boolean {
  return (Object.values(optionCode) as number[]).includes(option);
}

/**
 * Indexes of the contexts that `queries` name, each once. For a listing no query at all means everything,
 * and a namespace with its colon ("base:") everything in it.
 */
function matchingContexts(
  contexts: readonly string[],
  queries: readonly string[],
  isList: boolean,
): number[] {
  const asked = new Set(queries);
  return [...contexts.keys()].filter((index) => {
    const name = contexts[index];
    if (asked.has(name)) return true;
    return isList && (asked.size === 0 || asked.has(name.slice(0, name.indexOf(":") + 1)));
  });
}
