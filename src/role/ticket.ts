/**
 * The ticket that `dlsm export` gives and `dlsm attach` takes: everything that is needed to log in to an
 * export, as one line of text. It is a secret, and goes through a file or stdin. Pure.
 */
import { createHash } from "node:crypto";
import * as v from "valibot";
import { sourceExportSchema } from "../engine/mod.ts";
import { decodeCbor, encodeCbor, problemOfCbor } from "../lib/cbor.ts";
import { PreconditionError } from "../lib/errors.ts";
import { endpointSchema, idSchema } from "./messages.ts";

const prefix = "dlsm-ticket-1:";
const checkBytes = 4;
const maxTicketCharacters = 16_384;

const ticketSchema = v.object({ id: idSchema, source: endpointSchema, export: sourceExportSchema });
export type Ticket = v.InferOutput<typeof ticketSchema>;

export function encodeTicket(ticket: Ticket): string {
  const bytes = encodeCbor(ticket);
  return prefix + Buffer.concat([check(bytes), bytes]).toString("base64url");
}

/** Throws PreconditionError for anything but a whole ticket; `from` says where it came from. */
export function decodeTicket(text: string, from: string): Ticket {
  const refuse = (why: string) =>
    new PreconditionError(`what is in ${from} is no ticket: ${why}`, {
      hint: "give the line that dlsm export printed, as it was",
    });
  const line = text.trim();
  if (line === "") throw refuse("it is empty");
  if (line.length > maxTicketCharacters) throw refuse("it is too long");
  if (!line.startsWith(prefix)) throw refuse(`it does not begin with ${prefix}`);
  const bytes = Buffer.from(line.slice(prefix.length), "base64url");
  const payload = new Uint8Array(bytes.subarray(checkBytes));
  if (!check(payload).equals(bytes.subarray(0, checkBytes))) {
    throw refuse("a part of it is missing or changed");
  }
  const problem = problemOfCbor(payload);
  const parsed = problem === undefined ? v.safeParse(ticketSchema, decodeCbor(payload)) : undefined;
  if (!parsed?.success) throw refuse("its content makes no sense");
  return parsed.output;
}

function check(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest().subarray(0, checkBytes);
}
