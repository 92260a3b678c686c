/**
 * Every way to break the rules of a login, or to leave in the middle of it: the session says what it was,
 * tries again, and goes on as soon as the target is sane.
 */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type Hook, isRead, type Request, type ScriptedTarget, type TcpPeer } from "./scripted-target.ts";
import { checkRead, withSession } from "./sessions.ts";

const test = suite("logins that break the rules");

interface Script {
  readonly act: (request: Request, peer: TcpPeer) => void;
  readonly says: RegExp;
}

const says = (text: string, flags?: number): Script["act"] => (request, peer) =>
  peer.send(peer.loginResponse(request, text, flags));
const key = (text: string): Script["act"] => says(`AuthMethod=None\0${text}\0`);
const outOfRange = /a value for \w+ that is out of range/;
const closed = /closed the connection|connection lost|no answer from/;
const noMove = /moved but does not say where to/;
const moved = (address: string): Script["act"] => (request, peer) =>
  peer.send(peer.loginRefusal(request, 1, 1, `TargetAddress=${address}\0`));

const ends: Record<string, Script> = {
  "closes": { act: (_, peer) => void peer.socket.destroy(), says: closed },
  "resets": { act: (_, peer) => void peer.socket.resetAndDestroy(), says: closed },
  "closes in the middle of a header": {
    act: (request, peer) => void peer.socket.end(peer.loginResponse(request, "").subarray(0, 47)),
    says: closed,
  },
  "closes in the middle of the text": {
    act: (request, peer) =>
      void peer.socket.end(peer.loginResponse(request, "AuthMethod=None\0").subarray(0, 55)),
    says: closed,
  },
  "says nothing": { act: () => {}, says: /the login did not end within 400 ms/ },
  "stops in the middle of a header": {
    act: (request, peer) => peer.send(peer.loginResponse(request, "").subarray(0, 5)),
    says: /the login did not end within 400 ms/,
  },
  "announces text that does not come": {
    act: (request, peer) => peer.send(peer.loginResponse(request, "x".repeat(8000)).subarray(0, 500)),
    says: /the login did not end within 400 ms/,
  },
};

const nonsense: Record<string, Script> = {
  "is a web server": {
    act: (_, peer) => peer.send(Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n".repeat(40))),
    says: /bytes in one PDU|answered the login with opcode/,
  },
  "is an SSH server": {
    act: (_, peer) => peer.send(Buffer.from("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n".repeat(40))),
    says: /bytes in one PDU|answered the login with opcode/,
  },
  "sends zeroes": {
    act: (_, peer) => peer.send(Buffer.alloc(8192)),
    says: /answered the login with opcode 0/,
  },
  "answers with a SCSI Response": {
    act: (request, peer) => peer.send(peer.response(request.tag)),
    says: /answered the login with opcode 33/,
  },
  "sends data before the login": {
    act: (request, peer) => peer.send(peer.dataIn(request.tag, 0, 0, new Uint8Array(64))),
    says: /answered a command that it was not given/,
  },
  "sends more text than a login PDU may hold": {
    act: says(`X-a=${"b".repeat(8200)}\0`),
    says: /bytes in one PDU, not 8192/,
  },
  "sends a segment of 16 MiB less one": {
    act: (request, peer) => peer.send(peer.pdu(0x23, 0x81, [[16, 4, request.tag], [5, 3, 0xffffff]])),
    says: /16777215 bytes in one PDU/,
  },
};

const texts: Record<string, Script> = {
  "cuts the text short": { act: says("AuthMethod=No"), says: /text that is cut short/ },
  "sends a value without a key": { act: says("=x\0"), says: /not key=value pairs/ },
  "sends a key without a value": { act: says("AuthMethod\0"), says: /not key=value pairs/ },
  "sends a key of 64 characters": { act: says(`${"K".repeat(64)}=1\0`), says: /not key=value pairs/ },
  "sends a key with a terminal's escapes": { act: says("A\x1b[2J=1\0"), says: /not key=value pairs/ },
  "sends bytes that are no text": { act: says("\xff\xfe\xfd=1\0"), says: /not key=value pairs/ },
  "sends a key twice": { act: says("AuthMethod=None\0AuthMethod=None\0"), says: /the key AuthMethod twice/ },
  "sends 300 keys": {
    act: says(Array.from({ length: 300 }, (_, i) => `X-${i}=1\0`).join("")),
    says: /too many text keys/,
  },
  "continues for ever": { act: says("X-a=b\0".repeat(900), 0x40), says: /did not end in 32 rounds/ },
  "continues for ever with nothing": { act: says("", 0x40), says: /did not end in 32 rounds/ },
  "has one more round, always": { act: says("", 0), says: /did not end in 32 rounds/ },
  "has one more key, always": {
    act: (request, peer) => says(`X-${peer.statSN}=1\0`, 0)(request, peer),
    says: /did not end in 32 rounds/,
  },
  "answers in another stage": { act: says("", 0x87), says: /another login stage/ },
  "goes to a stage that nobody asked for": { act: says("", 0x83), says: /moved on in the login/ },
  "moves on and continues": { act: says("", 0xc1), says: /moved on in the login/ },
  "wants an authentication": {
    act: says("AuthMethod=CHAP\0"),
    says: /wants authentication, and no CHAP secret/,
  },
  "skips a StatSN": {
    act: (request, peer) => {
      if (request.header.getUint8(1) === 0x87) peer.takeStatSN();
      says("AuthMethod=None\0")(request, peer);
    },
    says: /StatSN \d+ instead of \d+/,
  },
};

const values: Record<string, Script> = {
  "takes no data": { act: key("MaxRecvDataSegmentLength=0"), says: outOfRange },
  "takes more data than there is": { act: key("MaxRecvDataSegmentLength=16777216"), says: outOfRange },
  "takes a negative amount": { act: key("MaxRecvDataSegmentLength=-1"), says: outOfRange },
  "takes a number in words": { act: key("MaxRecvDataSegmentLength=1e5"), says: outOfRange },
  "takes a number without an end": {
    act: key(`MaxRecvDataSegmentLength=${"9".repeat(500)}`),
    says: outOfRange,
  },
  "wants an unknown digest": { act: key("HeaderDigest=MD5"), says: /wants HeaderDigest other than None/ },
  "insists on a digest that was not offered": {
    act: key("DataDigest=CRC32C"),
    says: /wants DataDigest other than None/,
  },
  "wants no boolean": { act: key("InitialR2T=Maybe"), says: outOfRange },
  "wants a recovery level of 3": { act: key("ErrorRecoveryLevel=3"), says: outOfRange },
  "wants 0 connections": { act: key("MaxConnections=0"), says: outOfRange },
};

const refusals: Record<string, Script> = {
  "refuses": {
    act: (request, peer) => peer.send(peer.loginRefusal(request, 2, 3)),
    says: /no such target there/,
  },
  "refuses for no known reason": {
    act: (request, peer) => peer.send(peer.loginRefusal(request, 2, 0xee)),
    says: /refuses this initiator \(status 2\/238\)/,
  },
  "has a status class that is not defined": {
    act: (request, peer) => peer.send(peer.loginRefusal(request, 0xff, 0xff)),
    says: /unknown error \(status 255\/255\)/,
  },
  "moved, to nowhere": { act: moved(""), says: noMove },
  "moved, to port 0": { act: moved("127.0.0.1:0,1"), says: noMove },
  "moved, to a port that is none": { act: moved("127.0.0.1:99999"), says: noMove },
  "moved, to a URL": { act: moved("http://127.0.0.1/"), says: noMove },
  "moved, to two places": { act: moved("a:1,1 b:2,1"), says: noMove },
  "moved, to a name of 300 characters": { act: moved(`${"a".repeat(300)}:1`), says: noMove },
  "moved, to where nobody is": { act: moved("127.0.0.1:1,1"), says: /no connection to 127\.0\.0\.1:1: / },
};

const all = { ...ends, ...nonsense, ...texts, ...values, ...refusals };
for (const [what, { act, says: expected }] of Object.entries(all)) {
  test(`a target that ${what}`, async () => {
    const hook: Hook = (request, peer) => {
      if (request.opcode !== 3 || peer.index > 2) return false;
      act(request, peer);
      return true;
    };
    const setUp = (target: ScriptedTarget) => void (target.hook = hook);
    const options = { retryFirst: true, loginTimeoutMs: 400 };
    await withSession(options, async (session, target, { errors }) => {
      assert.ok(errors.length >= 2, "said each time");
      for (const error of errors) assert.match(error.message, expected);
      // deno-lint-ignore no-control-regex
      assert.not.match(errors[0].message, /[\x00-\x1f]/);
      assert.ok(errors[0].message.length < 500);
      assert.not(target.requests.some((request) => isRead(request)));
      await checkRead(session, 6, 6);
    }, setUp);
  });
}

test.run();
