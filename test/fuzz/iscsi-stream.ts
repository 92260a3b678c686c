/** PDUs of a target, as a stream and as the answer to a read. */
import fc from "fast-check";
import { crc32c } from "../../src/iscsi-initiator/crc32c.ts";
import { PduDecoder } from "../../src/iscsi-initiator/decoder.ts";
import { DigestError, IscsiError, ProtocolError } from "../../src/iscsi-initiator/errors.ts";
import { type Digests, type Header, headerBytes, opcodes } from "../../src/iscsi-initiator/pdu.ts";
import { read16 } from "../../src/iscsi-initiator/scsi.ts";
import { senseDataOf, Task } from "../../src/iscsi-initiator/task.ts";
import * as assert from "uvu/assert";
import { attempt, same } from "./expect.ts";
import { cuts, joined, type Mutated, mutated, segmentations } from "./mutation.ts";
import { target } from "./target.ts";

const maxDataBytes = 60;

interface WirePdu {
  readonly header: Uint8Array;
  readonly additional: Uint8Array;
  readonly data: Uint8Array;
}

interface Wire {
  readonly pdus: readonly WirePdu[];
  readonly digests: Digests;
}

const littleEndian = (value: number) => {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
};

export function encodePdu({ header, additional, data }: WirePdu, digests: Digests): Uint8Array {
  const head = joined(header, additional);
  head[4] = additional.length / 4;
  new DataView(head.buffer).setUint32(4, additional.length / 4 * 2 ** 24 + data.length);
  const padded = joined(data, new Uint8Array(-data.length & 3));
  return joined(
    head,
    digests.header ? littleEndian(crc32c(head)) : new Uint8Array(),
    padded,
    digests.data && data.length > 0 ? littleEndian(crc32c(padded)) : new Uint8Array(),
  );
}

const anyDigests = fc.record({ header: fc.boolean(), data: fc.boolean() });
const wirePdu = fc.record({
  header: fc.uint8Array({ minLength: headerBytes, maxLength: headerBytes }),
  additional: fc.nat(3).chain((words) => fc.uint8Array({ minLength: 4 * words, maxLength: 4 * words })),
  // Rarely a little more than was agreed on.
  data: fc.oneof(
    { weight: 12, arbitrary: fc.uint8Array({ maxLength: maxDataBytes }) },
    { weight: 1, arbitrary: fc.uint8Array({ minLength: maxDataBytes, maxLength: maxDataBytes + 4 }) },
  ),
});
const wire: fc.Arbitrary<Wire> = fc.record({
  pdus: fc.array(wirePdu, { minLength: 1, maxLength: 5 }),
  digests: fc.oneof(fc.constant({ header: false, data: false }), anyDigests),
});
const encodeWire = ({ pdus, digests }: Wire) => joined(...pdus.map((pdu) => encodePdu(pdu, digests)));

interface Decoded {
  readonly pdus: { header: Uint8Array; data: Uint8Array | "skipped" }[];
  error: string | undefined;
}

/** By turns a buffer of the caller, a new one, and none. */
const placeOf = (header: Header) => header.bytes[16]! % 3;

function decode(pieces: readonly Uint8Array[], digests: Digests): Decoded {
  const decoded: Decoded = { pdus: [], error: undefined };
  const decoder = new PduDecoder({
    onHeader(header) {
      if (placeOf(header) === 0) return new Uint8Array(header.dataBytes);
      return placeOf(header) === 1 ? undefined : "skip";
    },
    onPdu(header, data) {
      const isSkipped = placeOf(header) === 2;
      if (isSkipped) assert.is(data.length, 0);
      decoded.pdus.push({ header: header.bytes.slice(), data: isSkipped ? "skipped" : data.slice() });
    },
  }, maxDataBytes);
  decoder.configure(digests, maxDataBytes);
  const { error } = attempt([ProtocolError], () => pieces.forEach((piece) => decoder.push(piece)));
  decoded.error = error?.constructor.name;
  return decoded;
}

/** The same by RFC 7143 §11.2, out of a stream that is there as a whole. */
function reference(bytes: Uint8Array, digests: Digests): Decoded {
  const decoded: Decoded = { pdus: [], error: undefined };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0;;) {
    if (at + headerBytes > bytes.length) return decoded;
    const headEnd = at + headerBytes + 4 * bytes[at + 4]!;
    const dataAt = headEnd + (digests.header ? 4 : 0);
    if (dataAt > bytes.length) return decoded;
    if (digests.header && crc32c(bytes.subarray(at, headEnd)) !== view.getUint32(headEnd, true)) {
      return { ...decoded, error: DigestError.name };
    }
    const dataBytes = view.getUint32(at + 4) & 0xffffff;
    if (dataBytes > maxDataBytes) return { ...decoded, error: ProtocolError.name };
    const paddedEnd = dataAt + dataBytes + (-dataBytes & 3);
    const end = paddedEnd + (digests.data && dataBytes > 0 ? 4 : 0);
    if (end > bytes.length) return decoded;
    if (end > paddedEnd && crc32c(bytes.subarray(dataAt, paddedEnd)) !== view.getUint32(paddedEnd, true)) {
      return { ...decoded, error: DigestError.name };
    }
    const header = bytes.slice(at, at + headerBytes);
    const isSkipped = header[16]! % 3 === 2;
    decoded.pdus.push({ header, data: isSkipped ? "skipped" : bytes.slice(dataAt, dataAt + dataBytes) });
    at = end;
  }
}

export const pduStream = target<{ stream: Mutated<Wire>; places: number[] }>({
  name: "iscsi-pdu-stream",
  inputs: fc.record({ stream: mutated(wire, encodeWire), places: cuts }),
  runs: 700,
  check({ stream: { bytes, value: { digests } }, places }) {
    const expected = reference(bytes, digests);
    for (const pieces of segmentations(bytes, places)) same(decode(pieces, digests), expected, "PDUs");
    return expected.error === undefined ? "accepted" : "refused";
  },
});

interface Answer {
  readonly blocks: number;
  readonly segmentBytes: number;
  readonly statusInData: boolean;
}

const blockBytes = 16;
const contentOf = (length: number) => Uint8Array.from({ length }, (_, at) => 1 + (at * 7 + (at >> 8)) % 255);

/** An honest target's answer to a READ: Data-In after Data-In, and the status. */
function encodeAnswer({ blocks, segmentBytes, statusInData }: Answer): Uint8Array {
  const content = contentOf(blocks * blockBytes);
  const parts: Uint8Array[] = [];
  let dataSN = 0;
  for (let offset = 0; offset < content.length; offset += segmentBytes) {
    const data = content.subarray(offset, offset + segmentBytes);
    const isLast = offset + segmentBytes >= content.length;
    const header = new Uint8Array(headerBytes);
    header[0] = opcodes.dataIn;
    header[1] = isLast ? 0x80 | (statusInData ? 1 : 0) : 0;
    const view = new DataView(header.buffer);
    view.setUint32(36, dataSN++);
    view.setUint32(40, offset);
    parts.push(encodePdu({ header, additional: new Uint8Array(), data }, noDigests));
  }
  if (!statusInData) {
    const header = new Uint8Array(headerBytes);
    header.set([opcodes.scsiResponse, 0x80]);
    parts.push(encodePdu({ header, additional: new Uint8Array(), data: new Uint8Array() }, noDigests));
  }
  return joined(...parts);
}

const noDigests: Digests = { header: false, data: false };
const answer: fc.Arbitrary<Answer> = fc.record({
  blocks: fc.integer({ min: 1, max: 8 }),
  segmentBytes: fc.constantFrom(8, 12, 16, 20, 64),
  statusInData: fc.boolean(),
});

/** Feeds the answer to a read as a connection does; undefined: it never ended. */
function readWith(
  bytes: Uint8Array,
  { blocks }: Answer,
): { error: Error | undefined; task: Task } | undefined {
  const task = new Task(read16(0, blocks, blockBytes), new Uint8Array(blocks * blockBytes), true, () => {});
  let ended: { error: Error | undefined; task: Task } | undefined;
  const decoder = new PduDecoder({
    onHeader: (header) =>
      header.opcode === opcodes.dataIn && ended === undefined ? task.place(header) : undefined,
    onPdu(header, data) {
      if (ended !== undefined) return;
      const isResponse = header.opcode === opcodes.scsiResponse;
      const hasStatus = header.opcode === opcodes.dataIn && (header.flags & 1) !== 0;
      if (!isResponse && !hasStatus) return;
      ended = { error: task.outcome(header, isResponse ? senseDataOf(data) : new Uint8Array()), task };
    },
  }, 64);
  const { error } = attempt([ProtocolError], () => decoder.push(bytes));
  return ended ?? (error === undefined ? undefined : { error, task });
}

export const dataIn = target<Mutated<Answer>>({
  name: "iscsi-data-in",
  inputs: mutated(answer, encodeAnswer),
  runs: 3000,
  check({ bytes, value, isDamaged }) {
    const ended = readWith(bytes, value);
    if (!isDamaged) {
      assert.ok(ended !== undefined && ended.error === undefined, "an honest answer is refused");
    }
    if (ended === undefined || ended.error !== undefined) {
      if (ended?.error !== undefined) {
        attempt([IscsiError], () => {
          throw ended.error;
        });
      }
      return "refused";
    }
    // No byte of the buffer is left as it was, and none came from beyond its place.
    assert.is(ended.task.receivedBytes, ended.task.into.length);
    assert.ok(isPlausible(ended.task.into, bytes), "the read was answered with what was not sent for it");
    return "accepted";
  },
});

/** Every piece of the buffer stands in the stream as the payload of a Data-In with its offset. */
function isPlausible(into: Uint8Array, stream: Uint8Array): boolean {
  const found = new Uint8Array(into.length);
  const view = new DataView(stream.buffer, stream.byteOffset, stream.byteLength);
  for (let at = 0; at + headerBytes <= stream.length;) {
    const dataBytes = view.getUint32(at + 4) & 0xffffff;
    const dataAt = at + headerBytes + 4 * stream[at + 4]!;
    if ((stream[at]! & 0x3f) === opcodes.dataIn) {
      const offset = view.getUint32(at + 40);
      for (let i = 0; i < dataBytes && offset + i < into.length; i++) {
        if (stream[dataAt + i] === into[offset + i]) found[offset + i] = 1;
      }
    }
    at = dataAt + dataBytes + (-dataBytes & 3);
  }
  return found.every((byte) => byte === 1);
}
