/** Whole logins with targets that break the rules. */
import { createHash } from "node:crypto";
import fc from "fast-check";
import { ChapInitiator, chapResponse } from "../../src/iscsi-initiator/chap.ts";
import { IscsiError, LoginError, ProtocolError } from "../../src/iscsi-initiator/errors.ts";
import {
  LoginNegotiation,
  type LoginOptions,
  type LoginRequest,
  type LoginResponse,
  loginSegmentBytes,
} from "../../src/iscsi-initiator/login.ts";
import * as text from "../../src/iscsi-initiator/text.ts";
import * as assert from "uvu/assert";
import { attempt, same } from "./expect.ts";
import { type Pairs, someKey, someValue } from "./iscsi-text.ts";
import { type Mutated, mutated } from "./mutation.ts";
import { type Target, target } from "./target.ts";

const own = { user: "initiator-user", secret: "initiator-secret-0" };
const theirs = { user: "target-user", secret: "target-secret-00" };

/** What is done to one response of a target that is honest otherwise. */
interface Tweak {
  readonly drop: number | null;
  readonly set: readonly [string, string] | null;
  readonly add: readonly [string, string] | null;
  readonly transit: boolean | null;
  readonly stage: number | null;
  readonly status: readonly [number, number] | null;
  readonly split: number | null;
  readonly cutShort: boolean;
}

const maybe = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | null> =>
  fc.oneof({ weight: 14, arbitrary: fc.constant(null) }, { weight: 1, arbitrary });
const pair = fc.tuple(someKey, someValue.map((value) => value.replaceAll("\0", "")));
const tweak: fc.Arbitrary<Tweak> = fc.record({
  drop: maybe(fc.nat(5)),
  set: maybe(pair),
  add: maybe(pair),
  transit: maybe(fc.boolean()),
  stage: maybe(fc.nat(3)),
  status: maybe(fc.tuple(fc.nat(4), fc.nat(12))),
  split: maybe(fc.nat(60)),
  cutShort: fc.nat(30).map((value) => value === 0),
});

interface Login {
  readonly chap: "none" | "one-way" | "mutual";
  readonly digest: boolean;
  readonly tweaks: readonly Tweak[];
  /** How it answers the initiator's challenge. */
  readonly proof: "right" | "wrong" | "mirrored" | "none";
}

class FakeTarget {
  /** The initiator has seen a right proof under the right name. */
  hasProved = false;
  #waiting: LoginResponse[] = [];
  #at = 0;
  readonly #login: Login;

  constructor(login: Login) {
    this.#login = login;
  }

  answer(request: LoginRequest): LoginResponse {
    const next = this.#waiting.shift();
    if (next !== undefined) return next;
    const asked = new Map(text.parseText(request.text));
    const keys = request.stage === 0 ? this.#security(asked) : operational(asked);
    return this.#tweaked(request, keys);
  }

  #security(asked: Map<string, string>): Map<string, string> {
    const keys = new Map<string, string>();
    if (asked.has("AuthMethod")) keys.set("AuthMethod", asked.get("AuthMethod")!);
    if (asked.has("CHAP_A")) {
      for (
        const [key, value] of [["CHAP_A", "5"], ["CHAP_I", "9"], ["CHAP_C", "0x0102030405060708"]] as const
      ) {
        keys.set(key, value);
      }
    }
    const challenge = text.parseBinary(asked.get("CHAP_C") ?? "", 1024);
    const { proof } = this.#login;
    if (challenge !== undefined && asked.has("CHAP_R") && proof !== "none") {
      const secret = { right: theirs.secret, wrong: "no such secret", mirrored: own.secret }[proof];
      const response = chapResponse("md5", Number(asked.get("CHAP_I")), secret, challenge);
      keys.set("CHAP_N", theirs.user).set("CHAP_R", text.encodeBinary(response));
    }
    return keys;
  }

  #tweaked(request: LoginRequest, honest: Map<string, string>): LoginResponse {
    const { drop, set, add, transit, stage, status, split, cutShort } = this.#login.tweaks[this.#at++] ??
      noTweak;
    const keys = [...honest].filter((_, index) => index !== drop)
      .map(([key, value]) => [key, key === set?.[0] ? set[1] : value] as const);
    if (add !== null) keys.push(add);
    if (
      this.#login.proof === "right" &&
      keys.some(([key, value]) => key === "CHAP_R" && value === honest.get(key))
    ) {
      this.hasProved ||= keys.some(([key, value]) => key === "CHAP_N" && value === theirs.user);
    }
    const all = text.encodeText(keys);
    const bytes = cutShort ? all.subarray(0, -1) : all;
    const response = {
      transit: transit ?? request.transit,
      continues: false,
      stage: stage ?? request.stage,
      nextStage: request.nextStage,
      statusClass: status?.[0] ?? 0,
      statusDetail: status?.[1] ?? 0,
      text: bytes,
    };
    if (split === null || split >= bytes.length) return response;
    this.#waiting.push({ ...response, text: bytes.subarray(split) });
    return { ...response, transit: false, continues: true, text: bytes.subarray(0, split) };
  }
}

const noTweak: Tweak = {
  drop: null,
  set: null,
  add: null,
  transit: null,
  stage: null,
  status: null,
  split: null,
  cutShort: false,
};

function operational(asked: Map<string, string>): Map<string, string> {
  return new Map([...asked].map(([key, value]) => [key, value.split(",")[0]!]));
}

const login: fc.Arbitrary<Login> = fc.record({
  chap: fc.constantFrom("none", "one-way", "mutual", "mutual"),
  digest: fc.boolean(),
  tweaks: fc.oneof(fc.constant<Tweak[]>([]), fc.array(tweak, { maxLength: 6 })),
  proof: fc.constantFrom("right", "right", "right", "wrong", "mirrored", "none"),
});

function optionsOf({ chap, digest }: Login): LoginOptions {
  const wishes = { headerDigest: digest, dataDigest: digest, maxRecvDataSegmentLength: 262_144 };
  const names = { initiatorName: "iqn.2024-01.test:i", targetName: "iqn.2024-01.test:t", ...wishes };
  if (chap === "none") return names;
  return { ...names, chap: chap === "mutual" ? { ...own, target: theirs } : own };
}

const negotiation = target<Login>({
  name: "iscsi-login",
  inputs: login,
  runs: 1500,
  check(login) {
    const options = optionsOf(login);
    const chap = options.chap &&
      new ChapInitiator(options.chap, options.chap.target, (n) => new Uint8Array(n).fill(3));
    const fake = new FakeTarget(login);
    const machine = new LoginNegotiation(options, chap);
    const { value: ended, error } = attempt([LoginError, ProtocolError], () => {
      let request = machine.start();
      for (let round = 1;; round++) {
        checkRequest(request);
        assert.ok(round <= 40, "a login without end");
        const step = machine.receive(fake.answer(request));
        if (step.kind !== "send") return step;
        request = step.request;
      }
    });
    const isHonest = login.tweaks.length === 0 && (login.chap !== "mutual" || login.proof === "right");
    if (ended === undefined) {
      assert.not.ok(isHonest, "an honest target is refused");
      assert.not.ok(hasSecret((error as IscsiError).message), "a secret in a message");
      return "refused";
    }
    if (ended.kind === "redirect") return "refused";
    assert.ok(login.chap !== "mutual" || fake.hasProved, "a target that did not prove itself was let in");
    assert.ok(
      login.digest || !(ended.terms.headerDigest || ended.terms.dataDigest),
      "a digest nobody offered",
    );
    return "accepted";
  },
});

function checkRequest({ text: bytes, transit, continues }: LoginRequest): void {
  assert.ok(bytes.length <= loginSegmentBytes, "more text than a PDU takes");
  assert.not.ok(transit && continues);
  assert.not.ok(hasSecret(new TextDecoder().decode(bytes)), "a secret on the wire");
}

const hasSecret = (words: string) => words.includes(own.secret) || words.includes(theirs.secret);

const chapAnswers = target<Mutated<Pairs>>({
  name: "iscsi-chap",
  inputs: mutated(
    fc.record({
      name: fc.constantFrom(theirs.user, own.user),
      secret: fc.constantFrom(theirs.secret, own.secret),
    })
      .map(({ name, secret }): Pairs => {
        const response = createHash("md5").update(Uint8Array.of(3)).update(secret).update(
          new Uint8Array(16).fill(3),
        );
        return [["CHAP_N", name], ["CHAP_R", text.encodeBinary(response.digest())]];
      }),
    text.encodeText,
  ),
  runs: 2000,
  check({ bytes, isDamaged, value }) {
    const chap = new ChapInitiator(own, theirs, (n) => new Uint8Array(n).fill(3));
    chap.answer(new Map([["CHAP_A", "5"], ["CHAP_I", "1"], ["CHAP_C", "0x01"]]));
    const { error } = attempt([LoginError, ProtocolError], () => chap.verify(text.parseText(bytes)));
    const right = text.encodeBinary(chapResponse("md5", 3, theirs.secret, new Uint8Array(16).fill(3)));
    if (error !== undefined) {
      assert.ok(
        isDamaged || value[0]![1] !== theirs.user || value[1]![1] !== right,
        "the right proof is refused",
      );
      return "refused";
    }
    const sent = text.parseText(bytes);
    assert.is(sent.get("CHAP_N"), theirs.user);
    same(text.parseBinary(sent.get("CHAP_R")!, 64), text.parseBinary(right, 64), "the proof");
    return "accepted";
  },
});

export const loginTargets: readonly Target[] = [negotiation, chapAnswers];
