/**
 * The operational keys of a login (RFC 7143 §13): what is offered, and what an answer makes of it. Pure.
 */
import { LoginError, ProtocolError } from "./errors.ts";
import { parseNumber } from "./text.ts";

/** How offer and answer become a result (RFC 7143 §6.2). */
type Rule =
  /** The first of the offered values that the responder knows. */
  | { readonly kind: "list" }
  | { readonly kind: "min" | "max"; readonly from: number; readonly to: number }
  /** Booleans: "and" is Yes only if both say Yes, "or" is Yes if one does. */
  | { readonly kind: "and" | "or" }
  /** Each side states its own; there is no answer. */
  | { readonly kind: "declared"; readonly from?: number; readonly to?: number };

const lengths = { from: 512, to: 0xffffff };

const rules = new Map<string, Rule>([
  ["HeaderDigest", { kind: "list" }],
  ["DataDigest", { kind: "list" }],
  ["MaxConnections", { kind: "min", from: 1, to: 65535 }],
  ["InitialR2T", { kind: "or" }],
  ["ImmediateData", { kind: "and" }],
  ["MaxBurstLength", { kind: "min", ...lengths }],
  ["FirstBurstLength", { kind: "min", ...lengths }],
  ["DefaultTime2Wait", { kind: "max", from: 0, to: 3600 }],
  ["DefaultTime2Retain", { kind: "min", from: 0, to: 3600 }],
  ["MaxOutstandingR2T", { kind: "min", from: 1, to: 65535 }],
  ["DataPDUInOrder", { kind: "or" }],
  ["DataSequenceInOrder", { kind: "or" }],
  ["ErrorRecoveryLevel", { kind: "min", from: 0, to: 2 }],
  ["MaxRecvDataSegmentLength", { kind: "declared", ...lengths }],
  ["TargetPortalGroupTag", { kind: "declared" }],
  ["TargetAlias", { kind: "declared" }],
  ["TargetAddress", { kind: "declared" }],
]);

export interface OperationalWishes {
  readonly headerDigest: boolean;
  readonly dataDigest: boolean;
  readonly maxRecvDataSegmentLength: number;
}

export interface OperationalTerms {
  readonly headerDigest: boolean;
  readonly dataDigest: boolean;
}

/** Offers the initiator's values and keeps what they became; one object per login. */
export class OperationalKeys {
  readonly #offers: Map<string, string>;
  readonly #results = new Map<string, string>();

  constructor(wishes: OperationalWishes) {
    const digest = (wanted: boolean) => wanted ? "CRC32C,None" : "None";
    this.#offers = new Map([
      ["HeaderDigest", digest(wishes.headerDigest)],
      ["DataDigest", digest(wishes.dataDigest)],
      ["MaxRecvDataSegmentLength", String(wishes.maxRecvDataSegmentLength)],
      ["MaxConnections", "1"],
      ["InitialR2T", "Yes"],
      ["ImmediateData", "No"],
      ["MaxBurstLength", "262144"],
      ["FirstBurstLength", "65536"],
      ["DefaultTime2Wait", "2"],
      ["DefaultTime2Retain", "0"],
      ["MaxOutstandingR2T", "1"],
      // With both of these Yes, data arrives in ascending order, which Task insists on.
      ["DataPDUInOrder", "Yes"],
      ["DataSequenceInOrder", "Yes"],
      ["ErrorRecoveryLevel", "0"],
    ]);
  }

  get offers(): Iterable<[string, string]> {
    return this.#offers;
  }

  /**
   * Takes one key of the target. If the target began with it before it was offered, the result is the answer
   * that is owed; otherwise undefined.
   */
  take(key: string, value: string, wasOffered: boolean): string | undefined {
    const rule = rules.get(key);
    if (rule === undefined) return value === "NotUnderstood" ? undefined : "NotUnderstood";
    if (this.#results.has(key)) throw new ProtocolError(`the target negotiated ${key} twice`);
    if (rule.kind === "declared") {
      const { from, to } = rule;
      if (from !== undefined && to !== undefined && parseNumber(value, from, to) === undefined) {
        throw badValue(key);
      }
      this.#results.set(key, value);
      return undefined;
    }
    const offer = this.#offers.get(key)!;
    if (wasOffered) {
      this.#results.set(key, acceptAnswer(key, rule, offer, value));
      return undefined;
    }
    const result = combine(key, rule, offer, value);
    this.#results.set(key, result);
    return result;
  }

  /** Whether the initiator need not offer `key` any more. */
  isSettled(key: string): boolean {
    return this.#results.has(key) && rules.get(key)?.kind !== "declared";
  }

  get terms(): OperationalTerms {
    return {
      headerDigest: this.#results.get("HeaderDigest") === "CRC32C",
      dataDigest: this.#results.get("DataDigest") === "CRC32C",
    };
  }
}

function badValue(key: string): ProtocolError {
  return new ProtocolError(`the target sent a value for ${key} that is out of range`);
}

/** The result of a key that was offered; an answer that the offer does not allow is refused. */
function acceptAnswer(key: string, rule: Rule, offer: string, answer: string): string {
  if (answer === "Irrelevant") return "";
  if (answer === "Reject" || answer === "NotUnderstood") {
    throw new LoginError("negotiation", `the target answered ${key}=${offer} with ${answer}`);
  }
  if (combine(key, rule, offer, answer) !== answer && !isSameNumber(rule, offer, answer)) throw badValue(key);
  return answer;
}

function isSameNumber(rule: Rule, offer: string, answer: string): boolean {
  return (rule.kind === "min" || rule.kind === "max") &&
    combine("", rule, offer, answer) === String(Number(answer));
}

/** What the two values make together. */
function combine(key: string, rule: Rule, ours: string, theirs: string): string {
  switch (rule.kind) {
    case "list": {
      const known = ours.split(",");
      const chosen = theirs.split(",").find((value) => known.includes(value));
      if (chosen === undefined) {
        throw new LoginError("negotiation", `the target wants ${key} other than ${ours}`);
      }
      return chosen;
    }
    case "min":
    case "max": {
      const number = parseNumber(theirs, rule.from, rule.to);
      if (number === undefined) throw badValue(key);
      return String(rule.kind === "min" ? Math.min(Number(ours), number) : Math.max(Number(ours), number));
    }
    case "and":
    case "or": {
      if (theirs !== "Yes" && theirs !== "No") throw badValue(key);
      const yes = rule.kind === "and"
        ? ours === "Yes" && theirs === "Yes"
        : ours === "Yes" || theirs === "Yes";
      return yes ? "Yes" : "No";
    }
    case "declared":
      return theirs;
  }
}
