/**
 * Targets that cannot prove who they are, or ask for proofs that cannot be given: the login ends with a typed
 * error, no read is ever sent, and no secret gets out; once the target is sane again the session goes on.
 */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { LoginError, ProtocolError, Session } from "../../src/iscsi-initiator/mod.ts";
import { isRead, ScriptedTarget } from "./scripted-target.ts";
import { checkRead, errorOf, withSession } from "./sessions.ts";
import { answerLogin, loginPairs } from "./target-login.ts";

const test = suite("targets and CHAP");

const incoming = { user: "me", secret: "the-initiators-secret" };
const outgoing = { user: "you", secret: "the-targets-secret" };
const chap = { ...incoming, target: outgoing };
const hasCHAP = (target: ScriptedTarget) => void (target.chap = { incoming, outgoing });

/** Replaces the value of a key where the target sends it; undefined takes the pair away. */
const put = (key: string, value: string | undefined) => (text: string) =>
  text.replace(new RegExp(`(^|\0)${key}=[^\0]*\0`), value === undefined ? "$1" : `$1${key}=${value}\0`);

const hex = (bytes: number) => `0x${"5a".repeat(bytes)}`;
const noMethod = /supports none of MD5, SHA-1 and SHA3-256/;
const noChallenge = /no valid CHAP challenge/;
const noProof = /could not prove who it is/;

/** What the target says instead, and what the session says of it. */
const lies: Record<string, readonly [change: (text: string) => string, says: RegExp]> = {
  "no authentication": [put("AuthMethod", "None"), /does not authenticate with CHAP/],
  "an authentication that was not offered": [put("AuthMethod", "KRB5"), /does not authenticate with CHAP/],
  "a rejected authentication": [put("AuthMethod", "Reject"), /does not authenticate with CHAP/],
  "no answer about authentication": [put("AuthMethod", undefined), /does not authenticate with CHAP/],
  "no algorithm": [put("CHAP_A", undefined), noMethod],
  "an algorithm that was not offered": [put("CHAP_A", "7"), noMethod],
  "a list of algorithms": [put("CHAP_A", "5,6"), noMethod],
  "an algorithm without an end": [put("CHAP_A", "5".repeat(4000)), noMethod],
  "no identifier": [put("CHAP_I", undefined), noChallenge],
  "an identifier of 256": [put("CHAP_I", "256"), noChallenge],
  "a negative identifier": [put("CHAP_I", "-1"), noChallenge],
  "an identifier in words": [put("CHAP_I", "NaN"), noChallenge],
  "no challenge": [put("CHAP_C", undefined), noChallenge],
  "an empty challenge": [put("CHAP_C", ""), noChallenge],
  "a challenge of no digits": [put("CHAP_C", "0x"), noChallenge],
  "a challenge that is not hex": [put("CHAP_C", "0xzz"), noChallenge],
  "a challenge that is not base64": [put("CHAP_C", "0b===="), noChallenge],
  "a challenge without a prefix": [put("CHAP_C", "1234"), noChallenge],
  "a challenge of 1025 bytes": [put("CHAP_C", hex(1025)), noChallenge],
  "a challenge of 4 KB": [put("CHAP_C", hex(4000)), noChallenge],
  "no proof": [put("CHAP_R", undefined), noProof],
  "an empty proof": [put("CHAP_R", ""), noProof],
  "a proof of zeroes": [put("CHAP_R", `0x${"00".repeat(16)}`), noProof],
  "a proof that is too short": [put("CHAP_R", hex(15)), noProof],
  "a proof of 1024 bytes": [put("CHAP_R", hex(1024)), noProof],
  "a proof in nonsense": [put("CHAP_R", "0xgg"), noProof],
  "another name": [put("CHAP_N", "somebody"), noProof],
  "the initiator's name": [put("CHAP_N", incoming.user), noProof],
  "no name": [put("CHAP_N", undefined), noProof],
};

for (const [what, [change, says]] of Object.entries(lies)) {
  test(`${what}: refused; the session goes on when the target is sane`, async () => {
    const setUp = (target: ScriptedTarget) => {
      hasCHAP(target);
      target.loginText = (text, _, peer) => peer.index < 3 ? change(text) : text;
    };
    await withSession({ chap, retryFirst: true }, async (session, target, { errors, states }) => {
      assert.is(errors.length, 2);
      for (const error of errors) {
        assert.ok(error instanceof LoginError || error instanceof ProtocolError);
        assert.match(error.message, says);
        assert.not.match(`${error.stack}${JSON.stringify(error)}`, /s-secret/);
      }
      assert.not(target.requests.some((request) => isRead(request)));
      await checkRead(session, 5, 16);
      assert.is(states.filter((state) => state === "ready").length, 1);
    }, setUp);
  });
}

test("challenges of any length and writing are answered", async () => {
  const challenges = ["0x1", "0X5a5a", "0bWlpaWlpaWlo=", hex(1), hex(1024)];
  for (const challenge of challenges) {
    await withSession({ chap }, (session) => checkRead(session, 1, 1), (target) => {
      hasCHAP(target);
      const digits = challenge.slice(2);
      const padded = digits.length % 2 === 0 ? digits : `0${digits}`;
      const bytes = challenge[1] === "b" ? Buffer.from(digits, "base64") : Buffer.from(padded, "hex");
      target.loginText = (text, _, peer) => {
        if (!text.includes("CHAP_C=")) return text;
        peer.chapChallenge = bytes;
        return put("CHAP_C", challenge)(text);
      };
    });
  }
});

test("the answer that the initiator gave, sent back as the target's proof: refused", async () => {
  const setUp = (target: ScriptedTarget) => {
    hasCHAP(target);
    target.loginText = (text, request) => put("CHAP_R", loginPairs(request).get("CHAP_R"))(text);
  };
  const error = await errorOf(withSession({ chap }, () => Promise.resolve(), setUp));
  assert.match(error.message, noProof);
});

test("the initiator's own challenge, reflected to another session of it for an answer: refused", async () => {
  const target = new ScriptedTarget();
  await target.start();
  hasCHAP(target);
  const victim = new Session({ ...target.options, chap, isidQualifier: 7 });
  const helper = new Session({ ...target.options, chap, isidQualifier: 8 });
  let isReflected = false;
  target.hook = (request, peer) => {
    const pairs = request.opcode === 3 ? loginPairs(request) : new Map<string, string>();
    const challenge = pairs.get("CHAP_C");
    if (peer.isidQualifier !== 7 || challenge === undefined) return false;
    // The victim waits for the proof until its other session has answered the same challenge.
    target.hook = (other, helperPeer) => {
      if (other.opcode !== 3 || helperPeer.isidQualifier !== 8) return false;
      const answer = loginPairs(other);
      if (answer.has("CHAP_R")) {
        isReflected = true;
        const text = `CHAP_N=${outgoing.user}\0CHAP_R=${answer.get("CHAP_R")}\0`;
        peer.send(peer.loginResponse(request, text));
        helperPeer.socket.destroy();
        return true;
      }
      answerLogin(other, helperPeer, target.chap, (text) => {
        return put("CHAP_I", pairs.get("CHAP_I"))(put("CHAP_C", challenge)(text));
      });
      return true;
    };
    void helper.open().catch(() => {});
    return true;
  };
  const error = await errorOf(victim.open());
  assert.ok(isReflected);
  assert.match(error.message, noProof);
  await victim.close();
  await helper.close();
  await target.stop();
});

test("a target that goes on without the proof, or asks for none: refused", async () => {
  for (const flags of [0x81, 0x87]) {
    const setUp = (target: ScriptedTarget) => {
      hasCHAP(target);
      target.hook = (request, peer) => {
        if (request.opcode !== 3) return false;
        peer.send(peer.loginResponse(request, "AuthMethod=CHAP\0TargetPortalGroupTag=1\0", flags));
        return true;
      };
    };
    const error = await errorOf(withSession({ chap }, () => Promise.resolve(), setUp));
    assert.match(error.message, /moved on in the login without being asked|another login stage/);
  }
});

test.run();
