/** Targets that misbehave in the login: a typed error in bounded time and rounds. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type LoginError, ProtocolError, TransportError } from "../../src/iscsi-initiator/mod.ts";
import { type Hook, ScriptedTarget } from "./scripted-target.ts";
import { checkRead, errorOf, withSession } from "./sessions.ts";

const test = suite("targets that misbehave in the login");

test("logins refused: each class is a typed error that names target and portal, not the secret", async () => {
  const cases = [[2, 1, "authentication"], [2, 2, "authorization"], [2, 3, "notFound"], [
    3,
    1,
    "unavailable",
  ]];
  for (const [statusClass, detail, failure] of cases as [number, number, string][]) {
    const setUp = (target: ScriptedTarget) => {
      target.hook = (request, peer) => {
        peer.send(peer.loginRefusal(request, statusClass, detail));
        return true;
      };
    };
    const options = { chap: { user: "me", secret: "very-secret-word" } };
    const error = await errorOf(withSession(options, () => Promise.resolve(), setUp)) as LoginError;
    assert.equal([error.failure, error.statusClass, error.statusDetail], [failure, statusClass, detail]);
    assert.match(error.message, /iqn\.2026-01\.test:scripted at 127\.0\.0\.1:\d+/);
    assert.not.match(JSON.stringify(error) + error.stack, /very-secret-word/);
  }
});

test("redirects are followed, but not for ever", async () => {
  const other = new ScriptedTarget();
  await other.start();
  const moved = (port: number): Hook => (request, peer) => {
    peer.send(peer.loginRefusal(request, 1, 1, `TargetAddress=127.0.0.1:${port},1\0`));
    return true;
  };
  await withSession({}, async (session) => {
    await checkRead(session, 4, 4);
    assert.is(other.peers.length, 1);
  }, (target) => target.hook = moved(other.port));
  const error = await errorOf(
    withSession({}, () => Promise.resolve(), (target) => target.hook = moved(target.port)),
  );
  assert.is((error as LoginError).failure, "redirect");
  await other.stop();
});

test("logins that break the rules end in an error: text cut short, endless, wrong stage, hung", async () => {
  const hooks: Record<string, Hook> = {
    "text cut short": (request, peer) => peer.send(peer.loginResponse(request, "AuthMethod=No")),
    "text without a key": (request, peer) => peer.send(peer.loginResponse(request, "=x\0")),
    "C bit for ever": (request, peer) => peer.send(peer.loginResponse(request, "X-a=b\0".repeat(900), 0x40)),
    "rounds for ever": (request, peer) => peer.send(peer.loginResponse(request, "", 0)),
    "another stage": (request, peer) => peer.send(peer.loginResponse(request, "", 0x87)),
    "a read's answer": (request, peer) => peer.send(peer.response(request.tag)),
    "nothing": () => {},
  };
  for (const [what, act] of Object.entries(hooks)) {
    const setUp = (target: ScriptedTarget) => {
      target.hook = (request, peer) => {
        act(request, peer);
        return true;
      };
    };
    const error = await errorOf(withSession({ loginTimeoutMs: 150 }, () => Promise.resolve(), setUp));
    assert.instance(error, what === "nothing" ? TransportError : ProtocolError, what);
  }
});

test("login text in pieces (C bit) and keys that the target begins with", async () => {
  await withSession({}, async (session, target) => {
    await checkRead(session, 4, 4);
    const answers = target.requests.map((request) => Buffer.from(request.data).toString());
    assert.ok(answers.some((text) => text.includes("X-com.test.key=NotUnderstood\0")));
  }, (target) => {
    const pieces = ["AuthMethod=No", "ne\0X-com.test.key=", "1\0"];
    target.hook = (request, peer) => {
      const piece = request.opcode === 3 ? pieces.shift() : undefined;
      if (piece === undefined) return false;
      peer.send(peer.loginResponse(request, piece, pieces.length > 0 ? 0x40 : 0));
      return true;
    };
  });
});

test.run();
