/** Tickets, and what roles are asked over a conversation. */
import { createHash } from "node:crypto";
import fc from "fast-check";
import * as v from "valibot";
import { encodeCbor } from "../../src/lib/cbor.ts";
import { PreconditionError } from "../../src/lib/errors.ts";
import { type RequestName, requests } from "../../src/role/messages.ts";
import { decodeTicket, encodeTicket, type Ticket } from "../../src/role/ticket.ts";
import * as assert from "uvu/assert";
import { planOf } from "../role/plan.ts";
import { attempt, same } from "./expect.ts";
import { joined, mutatedText } from "./mutation.ts";
import { id, sourceExport } from "./records.ts";
import { type Target, target } from "./target.ts";
import { reshaped, type Reshaping, reshapings } from "./values.ts";

const endpoint = { host: "node1", path: "/dev/vg/disk", reach: null, hostId: null };
const sample = { id, source: endpoint, export: sourceExport } as Ticket;

/** A ticket whose checksum is right, whatever it says. */
function wrapped(content: unknown): string {
  const bytes = encodeCbor(content);
  const check = createHash("sha256").update(bytes).digest().subarray(0, 4);
  return `dlsm-ticket-1:${Buffer.from(joined(check, bytes)).toString("base64url")}`;
}

const secrets = [sourceExport.chap.incoming.secret, sourceExport.chap.outgoing.secret];

function read(text: string): Ticket | undefined {
  const { value, error } = attempt([PreconditionError], () => decodeTicket(text, "the file t"));
  if (error !== undefined) {
    assert.ok(error.message.startsWith("what is in the file t is no ticket: "), error.message);
    for (const secret of secrets) assert.not.ok(error.message.includes(secret), "a secret in a message");
  }
  return value;
}

const lines = target({
  name: "ticket-line",
  inputs: mutatedText(fc.constant(sample), encodeTicket, {
    words: ["\n", " ", "=", "dlsm-ticket-1:", "dlsm-ticket-2:"],
  }),
  runs: 700,
  check({ text, isDamaged }) {
    const found = read(text);
    if (!isDamaged) same(found, sample, "the ticket");
    if (found === undefined) return "refused";
    // Only what a terminal or an editor adds may be different: not one byte of what it says.
    same(found, sample, "a ticket that was changed");
    return "accepted";
  },
  atLeast: { accepted: 0.05, refused: 0.05 },
});

const contents = target<Reshaping[]>({
  name: "ticket-content",
  inputs: reshapings,
  runs: 500,
  check(changes) {
    const found = read(wrapped(reshaped(sample, changes)));
    assert.ok(changes.length > 0 || found !== undefined, "a sound ticket is refused");
    if (found === undefined) return "refused";
    same(read(encodeTicket(found)), found, "written again");
    const { port, sizeBytes, blockBytes, chap } = found.export;
    assert.ok(Number.isInteger(port) && port > 0 && port <= 65535);
    assert.ok(Number.isSafeInteger(sizeBytes) && sizeBytes % 512 === 0 && sizeBytes > 0);
    assert.ok(blockBytes === 512 || blockBytes === 4096);
    assert.ok(chap.incoming.secret !== "" && chap.outgoing.user !== "");
    assert.match(found.id, /^[a-z0-9]{4,16}(-[1-9][0-9]?)?$/);
    return "accepted";
  },
});

const samples: Partial<Record<RequestName, unknown>> = {
  "source.export": {
    id,
    path: "/dev/vg/disk",
    portal: { address: "192.0.2.7", port: 0 },
    allow: "192.0.2.8",
    tunnel: null,
    destination: endpoint,
  },
  "source.hash": { id, pieces: [[[0, 4096]], [[8192, 512]]] },
  "destination.plan": planOf("/var/lib/disk"),
  "destination.attach": { id, export: sourceExport },
  "destination.seed": { id, from: 0, to: 8192, extents: [[0, 4096]] },
  "destination.inspect": {
    path: "/d",
    sizeBytes: 4096,
    sourceBlockBytes: 512,
    force: false,
    source: { bootId: "b", identity: "i", standsOn: [] },
  },
  "destination.limit": { id, bytesPerSecond: null, totalBytesPerSecond: 5 },
  "host.probe": { address: "192.0.2.7", port: 1, timeoutMs: 5 },
};
const names = Object.keys(samples) as RequestName[];

const roleRequests = target<{ name: RequestName; changes: Reshaping[] }>({
  name: "role-requests",
  inputs: fc.record({ name: fc.constantFrom(...names), changes: reshapings }),
  runs: 1500,
  check({ name, changes }) {
    const checked = v.safeParse(requests[name], reshaped(samples[name], changes));
    assert.ok(changes.length > 0 || checked.success, "a sound request is refused");
    if (!checked.success) return "refused";
    checkRequest(checked.output);
    const { path } = checked.output as { path?: unknown };
    assert.ok(
      path === undefined || (typeof path === "string" && path !== "" && !path.includes("\0")),
      "a path",
    );
    return "accepted";
  },
});

/** What names files, hosts and sizes can be nothing else. */
function checkRequest(request: unknown): void {
  if (typeof request !== "object" || request === null) return;
  for (const [key, value] of Object.entries(request)) {
    if (key === "id") assert.match(String(value), /^[a-z0-9]{4,16}(-[1-9][0-9]?)?$/);
    if (key === "tunnel" || key === "reach") assert.ok(value === null || !String(value).startsWith("-"));
    if (key === "sizeBytes" || key === "from" || key === "to") {
      assert.ok(Number.isSafeInteger(value) && (value as number) >= 0, `${key} is ${value}`);
    }
    checkRequest(value);
  }
}

export const ticketTargets: readonly Target[] = [lines, contents, roleRequests];
