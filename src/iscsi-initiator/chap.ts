/**
 * CHAP as iSCSI uses it (RFC 7143 §12.1.3, RFC 1994): the initiator's side of one exchange. Pure; the
 * secrets stay in here and in no message.
 *
 *     initiator                                target
 *     CHAP_A=8,6,5                      →
 *                                       ←      CHAP_A=5 CHAP_I=… CHAP_C=…
 *     CHAP_N=… CHAP_R=… [CHAP_I CHAP_C] →
 *                                       ←      [CHAP_N=… CHAP_R=…]       (mutual)
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { LoginError, ProtocolError } from "./errors.ts";
import type { ChapCredentials } from "./options.ts";
import { encodeBinary, parseBinary, parseNumber, type TextKeys } from "./text.ts";

/**
 * CHAP_A numbers (IANA's "PPP authentication algorithms") and hashes, strongest first. 7, SHA-256, is left
 * out: tgtd chooses it, means something else by it, and then refuses the right response.
 */
const algorithms = new Map([["8", "sha3-256"], ["6", "sha1"], ["5", "md5"]]);

/** RFC 7143 §12.1.3: a binary item may have up to 1024 bytes. */
const maxChallengeBytes = 1024;

export const chapOffer: readonly (readonly [string, string])[] = [[
  "CHAP_A",
  [...algorithms.keys()].join(","),
]];

/** RFC 1994 §4.1: the hash of identifier, secret and challenge. */
export function chapResponse(
  hash: string,
  identifier: number,
  secret: string,
  challenge: Uint8Array,
): Uint8Array {
  return createHash(hash).update(Uint8Array.of(identifier)).update(secret, "utf8").update(challenge).digest();
}

export class ChapInitiator {
  readonly #own: ChapCredentials;
  readonly #target: ChapCredentials | undefined;
  readonly #random: (bytes: number) => Uint8Array;
  #expected: Uint8Array | undefined;

  constructor(
    own: ChapCredentials,
    target?: ChapCredentials,
    random: (n: number) => Uint8Array = randomBytes,
  ) {
    this.#own = own;
    this.#target = target;
    this.#random = random;
  }

  /** Answers the target's challenge, and with mutual CHAP adds one of its own. */
  answer(keys: TextKeys): [string, string][] {
    const algorithm = keys.get("CHAP_A") ?? "";
    const hash = algorithms.get(algorithm);
    if (hash === undefined) {
      throw new LoginError("authentication", "the target supports none of MD5, SHA-1 and SHA3-256 for CHAP");
    }
    const identifier = parseNumber(keys.get("CHAP_I") ?? "", 0, 255);
    const challenge = parseBinary(keys.get("CHAP_C") ?? "", maxChallengeBytes);
    if (identifier === undefined || challenge === undefined) {
      throw new ProtocolError("the target sent no valid CHAP challenge");
    }
    const response = chapResponse(hash, identifier, this.#own.secret, challenge);
    const answer: [string, string][] = [["CHAP_N", this.#own.user], ["CHAP_R", encodeBinary(response)]];
    if (this.#target === undefined) return answer;

    const ownIdentifier = this.#random(1)[0];
    const ownChallenge = this.#random(response.length);
    this.#expected = chapResponse(hash, ownIdentifier, this.#target.secret, ownChallenge);
    return [...answer, ["CHAP_I", String(ownIdentifier)], ["CHAP_C", encodeBinary(ownChallenge)]];
  }

  /** Checks what the target answered to the initiator's challenge; nothing to check in one-way CHAP. */
  verify(keys: TextKeys): void {
    if (this.#target === undefined) return;
    const response = parseBinary(keys.get("CHAP_R") ?? "", maxChallengeBytes);
    const expected = this.#expected;
    const isRight = expected !== undefined && response?.length === expected.length &&
      timingSafeEqual(response, expected) && keys.get("CHAP_N") === this.#target.user;
    if (!isRight) {
      throw new LoginError("authentication", "the target could not prove who it is (mutual CHAP)");
    }
  }
}
