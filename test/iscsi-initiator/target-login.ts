/** The login as a healthy target goes through it: digests as offered, CHAP both ways if it has secrets. Pure. */
import { createHash } from "node:crypto";
import type { Peer, Request } from "./target-peer.ts";

export interface TargetChap {
  /** What the initiator proves itself with. */
  readonly incoming: { readonly user: string; readonly secret: string };
  /** What the target proves itself with. */
  readonly outgoing: { readonly user: string; readonly secret: string };
}

/** The text of a login answer on its way out: returns what is sent instead. */
export type LoginText = (text: string, request: Request, peer: Peer) => string;

const md5 = "5";

/** `key=value` pairs of a request. */
export function loginPairs(request: Request): Map<string, string> {
  const pairs = Buffer.from(request.data).toString().split("\0").filter((pair) => pair !== "");
  return new Map(pairs.map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]));
}

export function chapProof(identifier: number, secret: string, challenge: Uint8Array): string {
  const hash = createHash("md5").update(Uint8Array.of(identifier)).update(secret).update(challenge);
  return `0x${hash.digest("hex")}`;
}

export function answerLogin(
  request: Request,
  peer: Peer,
  chap?: TargetChap,
  change: LoginText = (text) => text,
): void {
  const send = (text: string, flags?: number) =>
    peer.send(peer.loginResponse(request, change(text, request, peer), flags));
  const pairs = loginPairs(request);
  const isOperational = (request.header.getUint8(1) >> 2 & 3) === 1;
  if (isOperational) return answerOperational(pairs, peer, send);
  if (chap === undefined) return send("AuthMethod=None\0TargetPortalGroupTag=1\0");
  if (pairs.has("AuthMethod")) return send("AuthMethod=CHAP\0TargetPortalGroupTag=1\0", 0);
  if (pairs.has("CHAP_A")) {
    peer.chapChallenge = createHash("md5").update(`challenge ${peer.index}`).digest();
    return send(`CHAP_A=${md5}\0CHAP_I=7\0CHAP_C=0x${Buffer.from(peer.chapChallenge).toString("hex")}\0`, 0);
  }
  const { incoming, outgoing } = chap;
  const isRight = pairs.get("CHAP_N") === incoming.user &&
    pairs.get("CHAP_R") === chapProof(7, incoming.secret, peer.chapChallenge);
  if (!isRight) return peer.send(peer.loginRefusal(request, 2, 1));
  const challenge = Buffer.from(pairs.get("CHAP_C")?.slice(2) ?? "", "hex");
  const proof = chapProof(Number(pairs.get("CHAP_I")), outgoing.secret, challenge);
  send(`CHAP_N=${outgoing.user}\0CHAP_R=${proof}\0`);
}

function answerOperational(
  offered: ReadonlyMap<string, string>,
  peer: Peer,
  send: (text: string) => void,
): void {
  const wants = (key: string) => offered.get(key)?.startsWith("CRC32C") ?? false;
  const name = (isOn: boolean) => isOn ? "CRC32C" : "None";
  const digests = { header: wants("HeaderDigest"), data: wants("DataDigest") };
  send(
    `HeaderDigest=${name(digests.header)}\0DataDigest=${name(digests.data)}\0` +
      "MaxRecvDataSegmentLength=65536\0DataPDUInOrder=Yes\0DataSequenceInOrder=Yes\0ErrorRecoveryLevel=0\0" +
      "InitialR2T=Yes\0ImmediateData=No\0MaxBurstLength=262144\0DefaultTime2Wait=2\0DefaultTime2Retain=0\0",
  );
  peer.digests = digests;
  peer.isLoggedIn = true;
}
