/**
 * The message that makes a CHAP account, as tgtd's management socket takes it. Pure.
 *
 * tgtadm takes the secret as an argument, which everybody on the host can read in /proc/PID/cmdline; the
 * socket is how it stays private. One request a connection, little-endian, naturally aligned: a header of 120
 * bytes (usr/tgtadm.h, struct tgtadm_req), then a NUL-terminated string of at most 8 KiB. The answer is a
 * header of 8 bytes, `u32 error; u32 length` (of the whole), then text.
 */
import { TgtError } from "./errors.ts";

const headerBytes = 120;
const replyHeaderBytes = 8;
/** More than any answer has; a length beyond it is nonsense. */
const maxReplyBytes = 16 * 1024 * 1024;

const modeAccount = 7;
const opNew = 0;

/** `user` and `secret` as check.ts allows them: without commas in the user, ASCII. */
export function encodeNewAccount(user: string, secret: string): Uint8Array {
  const payload = new TextEncoder().encode(`user=${user},password=${secret}\0`);
  const message = new Uint8Array(headerBytes + payload.length);
  const view = new DataView(message.buffer);
  view.setInt32(0, modeAccount, true);
  view.setInt32(4, opNew, true);
  message.set(new TextEncoder().encode("iscsi"), 8);
  view.setUint32(72, message.length, true);
  view.setInt32(76, -1, true); // no target
  view.setBigUint64(88, 2n ** 64n - 1n, true); // no LUN
  message.set(payload, headerBytes);
  return message;
}

export interface Reply {
  /** 0: done; otherwise see errors.ts. */
  readonly error: number;
  readonly text: string;
}

/** The answer, once `bytes` holds all of it; undefined: more is to come. Throws TgtError on nonsense. */
export function decodeReply(bytes: Uint8Array): Reply | undefined {
  if (bytes.length < replyHeaderBytes) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const error = view.getUint32(0, true);
  const length = view.getUint32(4, true);
  if (length < replyHeaderBytes || length > maxReplyBytes) {
    throw new TgtError("badReply", `tgtd's management socket: an answer of ${length} bytes makes no sense`);
  }
  if (bytes.length < length) return undefined;
  const text = new TextDecoder().decode(bytes.subarray(replyHeaderBytes, length));
  return { error, text: text.replace(/\0[^]*$/, "") };
}
