import fc from "fast-check";
import { createHash } from "node:crypto";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { encodeCbor } from "../../src/lib/cbor.ts";
import { PreconditionError } from "../../src/lib/errors.ts";
import { decodeTicket, encodeTicket, type Ticket } from "../../src/role/ticket.ts";

const ticket: Ticket = {
  id: "abcd1234",
  source: { host: "höst", path: "/disks/a b.img", reach: null, hostId: null },
  export: {
    address: "192.0.2.7",
    port: 3260,
    targetName: "iqn.2026-01.local.dlsm:abcd1234.00ff",
    serial: "dlsm-abcd1234",
    chap: {
      incoming: { user: "in", secret: "s".repeat(32) },
      outgoing: { user: "out", secret: "t".repeat(32) },
    },
    sizeBytes: 4096,
    blockBytes: 512,
    holesReadZero: true,
    tunnel: null,
  },
};

function refusal(text: string): PreconditionError {
  try {
    decodeTicket(text, "ticket.txt");
  } catch (error) {
    if (error instanceof PreconditionError) return error;
    throw error;
  }
  throw new Error(`accepted: ${text}`);
}

const test = suite("ticket");

test("decodeTicket(encodeTicket()) gives the ticket, with space around it too", () => {
  const text = encodeTicket(ticket);
  assert.match(text, /^dlsm-ticket-1:[\w-]+$/);
  assert.equal(decodeTicket(text, "a file"), ticket);
  assert.equal(decodeTicket(` \n${text}\n\n`, "a file"), ticket);
});

test("decodeTicket() refuses what is cut short anywhere, or changed anywhere, and names where it came from", () => {
  const text = encodeTicket(ticket);
  for (let length = 0; length < text.length; length++) {
    const { message, hint } = refusal(text.slice(0, length));
    assert.match(message, "what is in ticket.txt is no ticket: ");
    assert.match(hint!, "dlsm export");
  }
  // The last digit of base64 may hold bits that mean nothing.
  for (let at = 0; at < text.length - 1; at++) {
    refusal(text.slice(0, at) + (text[at] === "x" ? "y" : "x") + text.slice(at + 1));
  }
});

test("decodeTicket() refuses any other text, and never fails otherwise", () => {
  fc.assert(fc.property(fc.string(), (text) => void refusal(text)));
  fc.assert(fc.property(fc.base64String(), (text) => void refusal(`dlsm-ticket-1:${text}`)));
});

test("decodeTicket() refuses content that makes no sense although its checksum is right", () => {
  const wrap = (bytes: Uint8Array) => {
    const check = createHash("sha256").update(bytes).digest().subarray(0, 4);
    return `dlsm-ticket-1:${Buffer.concat([check, bytes]).toString("base64url")}`;
  };
  const nonsense = [
    encodeCbor({ ...ticket, id: "../../etc" }),
    encodeCbor({ ...ticket, export: { ...ticket.export, port: 0 } }),
    encodeCbor("text"),
    new Uint8Array([0xff]),
    new Uint8Array(0),
  ];
  for (const bytes of nonsense) assert.match(refusal(wrap(bytes)).message, "its content makes no sense");
  assert.match(refusal("x".repeat(20_000)).message, "too long");
  assert.match(refusal("").message, "it is empty");
});

test.run();
