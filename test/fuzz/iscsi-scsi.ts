/** What a target says of its disk: sense data, INQUIRY, capacity, LUNs, extents. */
import fc from "fast-check";
import { ProtocolError } from "../../src/iscsi-initiator/errors.ts";
import * as scsi from "../../src/iscsi-initiator/scsi.ts";
import { parseSense, type Sense } from "../../src/iscsi-initiator/sense.ts";
import * as assert from "uvu/assert";
import { attempt, checkWords, same } from "./expect.ts";
import { joined, type Mutated, mutated } from "./mutation.ts";
import { type Target, target } from "./target.ts";

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const u64 = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc.bigInt({ min: 0n, max: 2n ** 20n }),
  fc.constantFrom(0n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n),
);
const viewOf = (data: Uint8Array) => new DataView(data.buffer, data.byteOffset, data.byteLength);

type SenseFields = Pick<Sense, "key" | "asc" | "ascq" | "deferred" | "information"> & {
  readonly isFixed: boolean;
};

const senseFields: fc.Arbitrary<SenseFields> = fc.record({
  isFixed: fc.boolean(),
  key: fc.nat(15),
  asc: fc.nat(255),
  ascq: fc.nat(255),
  deferred: fc.boolean(),
  information: fc.option(fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }), { nil: undefined }),
});

function encodeSense({ isFixed, key, asc, ascq, deferred, information }: SenseFields): Uint8Array {
  const isKnown = information !== undefined;
  if (isFixed) {
    const data = new Uint8Array(18);
    data[0] = (isKnown ? 0x80 : 0) | (deferred ? 0x71 : 0x70);
    data[2] = key;
    viewOf(data).setUint32(3, Number(information ?? 0n));
    data.set([10], 7);
    data.set([asc, ascq], 12);
    return data;
  }
  const head = Uint8Array.of(deferred ? 0x73 : 0x72, key, asc, ascq, 0, 0, 0, isKnown ? 16 : 4);
  const other = Uint8Array.of(0x02, 2, 0x80, 0);
  if (!isKnown) return joined(head, other);
  const descriptor = Uint8Array.of(0x00, 0x0a, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  viewOf(descriptor).setBigUint64(4, information);
  return joined(head, other, descriptor);
}

const sense = target<Mutated<SenseFields>>({
  name: "scsi-sense",
  inputs: mutated(senseFields, encodeSense),
  runs: 3000,
  check({ bytes: data, value, isDamaged }) {
    const found = parseSense(data);
    if (!isDamaged) {
      const { isFixed: _, ...expected } = value;
      const { text: __, ...fields } = found!;
      same(fields, expected, "sense");
    }
    if (found === undefined) return "refused";
    checkWords(found.text);
    assert.is(found.key, data[(data[0]! & 2) === 0 ? 2 : 1]! & 15);
    // Nothing that is not there is made up.
    assert.is(found.information, informationOf(data));
    if ((data[0]! & 2) === 0 && data.length < 13) assert.is(found.asc, 0);
    return "accepted";
  },
});

/** The INFORMATION field by SPC-4 §4.5.2.2 and §4.5.3: valid, and there as a whole. */
function informationOf(data: Uint8Array): bigint | undefined {
  if ((data[0]! & 2) === 0) {
    return data[0]! >= 0x80 && data.length >= 7 ? BigInt(viewOf(data).getUint32(3)) : undefined;
  }
  const descriptors = data.subarray(8, data.length < 8 ? 0 : Math.min(data.length, 8 + data[7]!));
  let found: bigint | undefined;
  for (let rest = descriptors; rest.length >= 2; rest = rest.subarray(2 + rest[1]!)) {
    if (rest[0] !== 0 || rest[1] !== 10 || rest.length < 12 || rest[2]! < 0x80) continue;
    found = viewOf(rest).getBigUint64(4);
  }
  return found;
}

interface CapacityFields {
  readonly last: bigint;
  readonly exponent: number;
  readonly rest: Uint8Array;
}

const capacity = target<Mutated<CapacityFields>>({
  name: "scsi-capacity",
  inputs: mutated<CapacityFields>(
    fc.record({ last: u64, exponent: fc.integer({ min: 8, max: 21 }), rest: bytes(20) }),
    ({ last, exponent, rest }) => {
      const data = joined(new Uint8Array(12), rest);
      viewOf(data).setBigUint64(0, last);
      viewOf(data).setUint32(8, 2 ** exponent);
      return data;
    },
  ),
  runs: 3000,
  check({ bytes: data }) {
    const { value: found, error } = attempt([ProtocolError], () => scsi.parseCapacity16(data));
    if (found === undefined) {
      assert.ok(error !== undefined);
      return "refused";
    }
    const { blocks, blockBytes, physicalBlockBytes } = found;
    assert.is(BigInt(blocks), viewOf(data).getBigUint64(0) + 1n);
    assert.is(blockBytes, viewOf(data).getUint32(8));
    assert.ok(blockBytes >= 512 && blockBytes <= 1 << 20 && Number.isInteger(Math.log2(blockBytes)));
    assert.ok(BigInt(blocks) * BigInt(blockBytes) < 2n ** 53n, "a size that a number cannot hold");
    assert.ok(physicalBlockBytes >= blockBytes && Number.isInteger(Math.log2(physicalBlockBytes)));
    return "accepted";
  },
});

interface Descriptor {
  readonly lba: bigint;
  readonly blocks: number;
  readonly status: number;
}

interface Status {
  readonly descriptors: readonly Descriptor[];
  readonly sizeBlocks: number;
}

const blockBytes = 512;

function encodeStatus({ descriptors }: Status): Uint8Array {
  const data = new Uint8Array(8 + 16 * descriptors.length);
  const view = viewOf(data);
  view.setUint32(0, data.length - 4);
  descriptors.forEach(({ lba, blocks, status }, index) => {
    view.setBigUint64(8 + 16 * index, lba);
    view.setUint32(16 + 16 * index, blocks);
    data[20 + 16 * index] = status;
  });
  return data;
}

/** Runs of blocks with gaps, the last one possibly past the end. */
const status: fc.Arbitrary<Status> = fc.record({
  runs: fc.array(fc.record({ gap: fc.nat(3), blocks: fc.nat(40), status: fc.nat(2) }), { maxLength: 6 }),
  start: fc.oneof(fc.nat(9), fc.constant(2 ** 33)),
  past: fc.nat(2),
}).map(({ runs, start, past }) => {
  let at = start;
  const descriptors = runs.map(({ gap, blocks, status }) => {
    const lba = BigInt(at += gap);
    at += blocks;
    return { lba, blocks, status };
  });
  return { descriptors, sizeBlocks: Math.max(1, at - past) };
});

const lbaStatus = target<Mutated<Status>>({
  name: "scsi-lba-status",
  inputs: mutated(status, encodeStatus),
  runs: 3000,
  check({ bytes: data, value: { sizeBlocks } }) {
    const sizeBytes = sizeBlocks * blockBytes;
    const { value: extents } = attempt(
      [ProtocolError],
      () => scsi.parseLbaStatus(data, blockBytes, sizeBytes),
    );
    if (extents === undefined) return "refused";
    let end = 0;
    const sent = Math.floor((Math.min(data.length, 4 + viewOf(data).getUint32(0)) - 8) / 16);
    const descriptors = Array.from({ length: Math.max(0, sent) }, (_, index) => ({
      offset: viewOf(data).getBigUint64(8 + 16 * index) * BigInt(blockBytes),
      length: BigInt(viewOf(data).getUint32(16 + 16 * index) * blockBytes),
      mapped: (data[20 + 16 * index]! & 15) !== 1,
    })).filter(({ length }) => length > 0n);
    assert.is(extents.length, descriptors.length, "an extent is missing, or made up");
    extents.forEach(({ offsetBytes, lengthBytes, mapped }, index) => {
      const { offset, length, mapped: isMapped } = descriptors[index]!;
      assert.ok(offsetBytes >= end, "extents overlap or go back");
      end = offsetBytes + lengthBytes;
      assert.ok(lengthBytes > 0 && end <= sizeBytes, "an extent reaches past the disk");
      assert.is(BigInt(offsetBytes), offset);
      assert.is(
        BigInt(lengthBytes),
        length < BigInt(sizeBytes) - offset ? length : BigInt(sizeBytes) - offset,
      );
      assert.is(mapped, isMapped);
    });
    return "accepted";
  },
});

interface Luns {
  readonly fields: readonly Uint8Array[];
}

const luns = target<Mutated<Luns>>({
  name: "scsi-luns",
  inputs: mutated<Luns>(
    fc.record({ fields: fc.array(fc.oneof(bytes(8), fc.nat(0x3fff).map(scsi.lunField)), { maxLength: 6 }) }),
    ({ fields }) => {
      const data = joined(new Uint8Array(8), ...fields);
      viewOf(data).setUint32(0, 8 * fields.length);
      return data;
    },
  ),
  runs: 3000,
  check({ bytes: data, value: { fields }, isDamaged }) {
    const { value: found } = attempt([ProtocolError], () => scsi.parseLuns(data));
    if (found === undefined) return "refused";
    assert.is(found.neededBytes, 8 + viewOf(data).getUint32(0));
    assert.ok(found.luns.length <= (data.length - 8) / 8, "more LUNs than fit");
    for (const lun of found.luns) assert.ok(lun >= 0 && lun <= 0x3fff);
    if (!isDamaged) {
      const single = fields.filter((field) =>
        field[0]! < 128 && field.subarray(2).every((byte) => byte === 0)
      );
      assert.equal(found.luns, single.map((field) => (field[0]! & 0x3f) << 8 | field[1]!));
    }
    return "accepted";
  },
  atLeast: { accepted: 0.05, refused: 0.01 },
});

interface Page {
  readonly page: number;
  readonly body: Uint8Array;
}

const designator = fc.record({
  head: bytes(3),
  id: fc.uint8Array({ maxLength: 20 }),
}).map(({ head, id }) => joined(head, Uint8Array.of(id.length), id));
const pageNumbers = [0x00, 0x80, 0x83, 0xb0] as const;
const page: fc.Arbitrary<Page> = fc.record({
  page: fc.constantFrom(...pageNumbers),
  body: fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc.array(designator, { maxLength: 4 }).map((parts) => joined(...parts)),
  ),
});

const vpd = target<Mutated<Page>>({
  name: "scsi-vpd",
  inputs: mutated(
    page,
    ({ page, body }) => joined(Uint8Array.of(0, page, body.length >> 8, body.length), body),
  ),
  runs: 3000,
  check({ bytes: data, value: { page, body }, isDamaged }) {
    const { value: found } = attempt([ProtocolError], () => {
      const pages = { 0x00: scsi.parseSupportedPages, 0x80: scsi.parseSerial, 0x83: scsi.parseDesignators };
      return page === 0xb0 ? scsi.parseMaxTransferBlocks(data) : pages[page as 0](data);
    });
    for (const other of pageNumbers) {
      if (other === data[1]) continue;
      const parse = other === 0x00 ? scsi.parseSupportedPages : scsi.parseSerial;
      if (other !== 0x00 && other !== 0x80) continue;
      const { error } = attempt([ProtocolError], () => parse(data));
      assert.ok(error !== undefined, "another page is taken for this one");
    }
    if (found === undefined) {
      assert.ok(isDamaged);
      return "refused";
    }
    const bodyBytes = Math.min(data.length - 4, viewOf(data).getUint16(2));
    if (typeof found === "string") checkPrintable(found, bodyBytes);
    else if (typeof found === "number") {
      assert.is(found, bodyBytes >= 8 ? viewOf(data).getUint32(8) : 0);
    } else checkList(found, data, bodyBytes);
    if (!isDamaged && page === 0x00) assert.equal(found, [...body]);
    return "accepted";
  },
});

function checkList(found: readonly unknown[], data: Uint8Array, bodyBytes: number): void {
  if (data[1] === 0x00) return assert.is(found.length, bodyBytes);
  let at = 4;
  for (const { id, type, association } of found as scsi.Designator[]) {
    assert.ok(at + 4 + data[at + 3]! <= 4 + bodyBytes, "a designator that is not there");
    assert.is(type, data[at + 1]! & 15);
    assert.is(association, data[at + 1]! >> 4 & 3);
    checkPrintable(id, 2 * data[at + 3]!);
    at += 4 + data[at + 3]!;
  }
}

function checkPrintable(text: string, maxLength: number): void {
  assert.ok(text.length <= maxLength, "more text than was sent");
  assert.ok(/^[\x20-\x7e]*$/.test(text), "text that a terminal would obey");
}

const inquiry = target<Mutated<Uint8Array>>({
  name: "scsi-inquiry",
  inputs: mutated(fc.uint8Array({ minLength: 30, maxLength: 96 }), (data) => data),
  runs: 3000,
  check({ bytes: data }) {
    const { value: found } = attempt([ProtocolError], () => scsi.parseInquiry(data));
    assert.is(found === undefined, data.length < 36);
    if (found === undefined) return "refused";
    assert.is(found.qualifier << 5 | found.deviceType, data[0]);
    checkPrintable(found.vendor, 8);
    checkPrintable(found.product, 16);
    checkPrintable(found.revision, 4);
    return "accepted";
  },
});

export const scsiTargets: readonly Target[] = [sense, capacity, lbaStatus, luns, vpd, inquiry];
