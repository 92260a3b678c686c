/**
 * The login phase (RFC 7143 §6.3): what to send, and what an answer leads to. Pure.
 *
 * | phase       | stage | waits for                         | then sends                              |
 * |-------------|-------|-----------------------------------|-----------------------------------------|
 * | method      | 0     | AuthMethod=CHAP                   | CHAP_A                                  |
 * | challenge   | 0     | CHAP_A, CHAP_I, CHAP_C            | CHAP_N, CHAP_R [, CHAP_I, CHAP_C], T=1  |
 * | transit     | 0     | T=1 [with CHAP_N, CHAP_R]         | the operational keys, T=1               |
 * | operational | 1     | T=1 (before it: keys to answer)   | nothing: the full-feature phase begins  |
 *
 * Without CHAP the first request carries AuthMethod=None with T=1 and the machine starts in `transit`. With
 * CHAP nothing else is offered, so that nobody can talk the initiator out of it.
 */
import { ChapInitiator, chapOffer } from "./chap.ts";
import { LoginError, ProtocolError } from "./errors.ts";
import { OperationalKeys, type OperationalTerms, type OperationalWishes } from "./login-keys.ts";
import { loginRefusal, parseTargetAddress } from "./login-status.ts";
import type { ChapCredentials } from "./options.ts";
import { encodeText, parseText } from "./text.ts";

export const stages = { security: 0, operational: 1, fullFeature: 3 } as const;

/** Requests in one login at most; a real one needs 3 to 6. */
const maxRounds = 32;

/** Text of one login PDU (RFC 7143 §13.12: the default, which a login cannot change). */
export const loginSegmentBytes = 8192;

export interface LoginRequest {
  readonly stage: number;
  readonly nextStage: number;
  /** T: ready for `nextStage`. */
  readonly transit: boolean;
  /** C: the text goes on in the next request. */
  readonly continues: boolean;
  readonly text: Uint8Array;
}

export interface LoginResponse extends LoginRequest {
  readonly statusClass: number;
  readonly statusDetail: number;
}

export type LoginStep =
  | { readonly kind: "send"; readonly request: LoginRequest }
  | { readonly kind: "redirect"; readonly host: string; readonly port: number }
  | { readonly kind: "done"; readonly terms: OperationalTerms };

export interface LoginOptions extends OperationalWishes {
  readonly initiatorName: string;
  readonly targetName: string;
  readonly chap?: ChapCredentials & { readonly target?: ChapCredentials };
}

export class LoginNegotiation {
  readonly #options: LoginOptions;
  readonly #chap: ChapInitiator | undefined;
  readonly #operational: OperationalKeys;
  #phase: "method" | "challenge" | "transit" | "operational";
  #rounds = 0;
  /** The request that is being answered. */
  #last: LoginRequest | undefined;
  /** What a request with C left for the next ones, and whether the last of them has T. */
  #unsent: Uint8Array = new Uint8Array();
  #unsentTransit = false;
  /** Text of responses with C, until the one without; rounds and PDU size bound it. */
  #received: Uint8Array[] = [];
  readonly #offered = new Set<string>();
  #owed: [string, string][] = [];

  constructor(options: LoginOptions, chap?: ChapInitiator) {
    this.#options = options;
    const { chap: own } = options;
    this.#chap = chap ?? (own === undefined ? undefined : new ChapInitiator(own, own.target));
    this.#operational = new OperationalKeys(options);
    this.#phase = this.#chap === undefined ? "transit" : "method";
  }

  start(): LoginRequest {
    const method = this.#chap === undefined ? "None" : "CHAP";
    return this.#request([
      ["InitiatorName", this.#options.initiatorName],
      ["SessionType", "Normal"],
      ["TargetName", this.#options.targetName],
      ["AuthMethod", method],
    ], this.#phase === "transit");
  }

  /** Throws `LoginError` if one side refuses, `ProtocolError` if the target breaks the rules. */
  receive(response: LoginResponse): LoginStep {
    if (response.statusClass === 1) return redirectStep(response);
    if (response.statusClass !== 0) throw loginRefusal(response.statusClass, response.statusDetail);
    this.#check(response);
    this.#received.push(response.text);
    // What is longer than a PDU goes on when the other side has acknowledged the piece with an empty PDU.
    if (response.continues) return this.#send(new Uint8Array(), false);
    if (this.#unsent.length > 0) return this.#send(this.#unsent, this.#unsentTransit);

    const keys = parseText(Buffer.concat(this.#received));
    this.#received = [];
    this.#takeOperational(keys);
    return this.#advance(keys, response.transit);
  }

  #check(response: LoginResponse): void {
    const last = this.#last!;
    if (response.stage !== last.stage) throw new ProtocolError("the target answered in another login stage");
    if (!response.transit) return;
    if (!last.transit || response.nextStage !== last.nextStage || response.continues) {
      throw new ProtocolError("the target moved on in the login without being asked to");
    }
  }

  /** Keeps the operational keys of a response, and the answers that they ask for. */
  #takeOperational(keys: Map<string, string>): void {
    for (const [key, value] of keys) {
      if (key === "AuthMethod" || key.startsWith("CHAP_")) continue;
      const answer = this.#operational.take(key, value, this.#offered.has(key));
      if (answer !== undefined) this.#owed.push([key, answer]);
    }
  }

  #advance(keys: Map<string, string>, transit: boolean): LoginStep {
    switch (this.#phase) {
      case "method":
        if (keys.get("AuthMethod") !== "CHAP") {
          throw new LoginError("authentication", "the target does not authenticate with CHAP");
        }
        this.#phase = "challenge";
        return this.#sendPairs(chapOffer, false);
      case "challenge": {
        const answer = this.#chap!.answer(keys);
        this.#phase = "transit";
        return this.#sendPairs(answer, true);
      }
      case "transit":
        return this.#leaveSecurity(keys, transit);
      case "operational": {
        if (!transit) return this.#sendPairs([], true);
        if (this.#owed.some(([, answer]) => answer !== "NotUnderstood")) {
          throw new ProtocolError("the target ended the login with a key still to be answered");
        }
        return { kind: "done", terms: this.#operational.terms };
      }
    }
  }

  #leaveSecurity(keys: Map<string, string>, transit: boolean): LoginStep {
    const method = keys.get("AuthMethod");
    if (this.#chap === undefined && method !== undefined && method !== "None") {
      throw new LoginError("authentication", "the target wants authentication, and no CHAP secret was given");
    }
    if (this.#chap !== undefined && (transit || keys.has("CHAP_R"))) this.#chap.verify(keys);
    if (!transit) return this.#sendPairs([], true);
    this.#phase = "operational";
    const offers = [...this.#operational.offers].filter(([key]) => !this.#operational.isSettled(key));
    for (const [key] of offers) this.#offered.add(key);
    return this.#sendPairs(offers, true);
  }

  #sendPairs(pairs: readonly (readonly [string, string])[], transit: boolean): LoginStep {
    return { kind: "send", request: this.#request(pairs, transit) };
  }

  #request(pairs: readonly (readonly [string, string])[], transit: boolean): LoginRequest {
    const text = encodeText([...pairs, ...this.#owed]);
    this.#owed = [];
    return this.#cut(text, transit);
  }

  #send(text: Uint8Array, transit: boolean): LoginStep {
    return { kind: "send", request: this.#cut(text, transit) };
  }

  /** The next request: as much of `text` as fits, the rest put by. */
  #cut(text: Uint8Array, transit: boolean): LoginRequest {
    if (++this.#rounds > maxRounds) throw new ProtocolError(`the login did not end in ${maxRounds} rounds`);
    const isOperational = this.#phase === "operational";
    const continues = text.length > loginSegmentBytes;
    this.#unsent = text.subarray(loginSegmentBytes);
    this.#unsentTransit = transit;
    this.#last = {
      stage: isOperational ? stages.operational : stages.security,
      nextStage: isOperational ? stages.fullFeature : stages.operational,
      transit: transit && !continues,
      continues,
      text: text.subarray(0, loginSegmentBytes),
    };
    return this.#last;
  }
}

function redirectStep(response: LoginResponse): LoginStep {
  const address = parseTargetAddress(parseText(response.text).get("TargetAddress") ?? "");
  if (address === undefined) {
    throw new LoginError(
      "redirect",
      "the target has moved but does not say where to",
      1,
      response.statusDetail,
    );
  }
  return { kind: "redirect", ...address };
}
