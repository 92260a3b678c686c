/** The pure parts: CRC32C, sequence numbers, text keys, CHAP, CDBs and their answers, sense data. */
import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { ChapInitiator, chapResponse } from "../../src/iscsi-initiator/chap.ts";
import { crc32c } from "../../src/iscsi-initiator/crc32c.ts";
import { Dispatcher } from "../../src/iscsi-initiator/dispatcher.ts";
import { LoginError, ProtocolError, ScsiError } from "../../src/iscsi-initiator/errors.ts";
import { differenceOf } from "../../src/iscsi-initiator/identify.ts";
import { Keepalive } from "../../src/iscsi-initiator/keepalive.ts";
import { parseTargetAddress } from "../../src/iscsi-initiator/login-status.ts";
import { type InitiatorOptions, isidOf, settingsOf } from "../../src/iscsi-initiator/options.ts";
import { backoffMs, planRetry } from "../../src/iscsi-initiator/retry.ts";
import * as scsi from "../../src/iscsi-initiator/scsi.ts";
import { parseSense } from "../../src/iscsi-initiator/sense.ts";
import { CommandWindow, serialBefore } from "../../src/iscsi-initiator/sequence.ts";
import { Task } from "../../src/iscsi-initiator/task.ts";
import { encodeText, parseBinary, parseNumber, parseText } from "../../src/iscsi-initiator/text.ts";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const fromHex = (text: string) => Uint8Array.from(Buffer.from(text.replaceAll(" ", ""), "hex"));

const test = suite("pure parts");

function onWire(bytes: Uint8Array): string {
  const digest = Buffer.alloc(4);
  digest.writeUInt32LE(crc32c(bytes));
  return hex(digest);
}

test("crc32c: the examples of RFC 7143 appendix A.4 (RFC 3720 B.4)", () => {
  assert.is(onWire(new Uint8Array(32)), "aa36918a");
  assert.is(onWire(new Uint8Array(32).fill(0xff)), "43aba862");
  assert.is(onWire(Uint8Array.from({ length: 32 }, (_, i) => i)), "4e79dd46");
  assert.is(onWire(Uint8Array.from({ length: 32 }, (_, i) => 31 - i)), "5cdb3f11");
  const readPdu =
    "01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018 28000000 00000000" +
    "02000000 00000000";
  assert.is(onWire(fromHex(readPdu)), "563a96d9");
});

test("crc32c: goes on across pieces", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(200), (bytes, at) => {
    assert.is(crc32c(bytes.subarray(at), crc32c(bytes.subarray(0, at))), crc32c(bytes));
  }));
});

test("sequence: compare across the wrap (RFC 1982)", () => {
  assert.ok(serialBefore(0xffffffff, 0));
  assert.ok(serialBefore(5, 6));
  assert.not(serialBefore(6, 6));
  assert.not(serialBefore(0, 0xfffffff0));
});

test("sequence: the window opens and shuts, and ignores what is old or contradicts itself", () => {
  const window = new CommandWindow(0xfffffffe);
  assert.not(window.isOpen);
  window.update(0xfffffffe, 0);
  assert.equal([window.take(), window.take(), window.isOpen, window.take(), window.isOpen], [
    0xfffffffe,
    0xffffffff,
    true,
    0,
    false,
  ]);
  window.update(0xfffffffe, 0xffffffff);
  window.update(10, 5);
  assert.not(window.isOpen);
  window.update(1, 1);
  assert.ok(window.isOpen);
});

test("text: encode and parse are inverse", () => {
  assert.equal(parseText(encodeText([["A", "1"], ["B", "x=y"]])), new Map([["A", "1"], ["B", "x=y"]]));
  assert.equal(parseText(Buffer.from("A=\0\0\0")), new Map([["A", ""]]));
});

test("text: text that is cut short, malformed, doubled or too much is refused", () => {
  const many = encodeText(Array.from({ length: 300 }, (_, i) => [`K${i}`, "v"]));
  const texts = ["A=1", "=1\0", "A\0", "A=1\0A=2\0", `${"K".repeat(64)}=1\0`, "A b=1\0", many];
  for (const text of [...texts, new Uint8Array(70000)]) {
    assert.throws(() => parseText(Buffer.from(text)), (error: unknown) => error instanceof ProtocolError);
  }
});

test("text: any bytes either parse or are a ProtocolError", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
    try {
      parseText(bytes);
    } catch (error) {
      assert.instance(error, ProtocolError);
    }
  }));
});

test("text: numbers and binary values", () => {
  assert.equal(["12", "0x1F", "13", "-1", "1.5", "", "1e1"].map((text) => parseNumber(text, 0, 31)), [
    12,
    31,
    13,
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
  assert.is(parseNumber("32", 0, 31), undefined);
  assert.is(hex(parseBinary("0xabc", 4)!), "0abc");
  assert.is(hex(parseBinary("0bAQID", 4)!), "010203");
  for (const bad of ["", "0x", "0xzz", "12", "0b!!", "0x0102030405", "0bAQIDBAUG"]) {
    assert.is(parseBinary(bad, 4), undefined, bad);
  }
});

test("chap: the response of RFC 1994, over identifier, secret and challenge", () => {
  // printf '\x01secret\x10\x20' | openssl md5
  const expected = "ff8ea11badc75761a23723674d244201";
  assert.is(hex(chapResponse("md5", 1, "secret", Uint8Array.of(0x10, 0x20))), expected);
});

const challenge = new Map([["CHAP_A", "5"], ["CHAP_I", "1"], ["CHAP_C", "0x1020"]]);

test("chap: answers a challenge", () => {
  const answer = new Map(new ChapInitiator({ user: "u", secret: "secret" }).answer(challenge));
  assert.equal([...answer.keys()], ["CHAP_N", "CHAP_R"]);
  assert.is(answer.get("CHAP_R"), `0x${hex(chapResponse("md5", 1, "secret", Uint8Array.of(0x10, 0x20)))}`);
});

test("chap: mutual: only the right answer to the own challenge passes", () => {
  for (const [algorithm, hash] of [["5", "md5"], ["6", "sha1"], ["8", "sha3-256"]]) {
    const make = () => {
      const initiator = new ChapInitiator({ user: "u", secret: "one" }, { user: "t", secret: "two" });
      const keys = new Map(initiator.answer(new Map([...challenge, ["CHAP_A", algorithm]])));
      const own = parseBinary(keys.get("CHAP_C")!, 1024)!;
      const right = `0x${hex(chapResponse(hash, Number(keys.get("CHAP_I")), "two", own))}`;
      return { initiator, right };
    };
    const good = make();
    good.initiator.verify(new Map([["CHAP_N", "t"], ["CHAP_R", good.right]]));
    const wrong = [["x", good.right], ["t", `${good.right.slice(0, -2)}00`], ["t", "0x00"], ["t", ""]];
    for (const [name, response] of wrong) {
      const { initiator } = make();
      const answer = new Map([["CHAP_N", name], ["CHAP_R", response]]);
      assert.throws(() => initiator.verify(answer), (error: unknown) => error instanceof LoginError);
    }
  }
});

test("chap: a challenge that is missing, too long or of an unknown algorithm is refused", () => {
  const initiator = new ChapInitiator({ user: "u", secret: "secret" });
  for (
    const change of [["CHAP_A", "7"], ["CHAP_I", "256"], ["CHAP_C", ""], ["CHAP_C", `0x${"00".repeat(1025)}`]]
  ) {
    assert.throws(() => initiator.answer(new Map([...challenge, change as [string, string]])));
  }
});

test("scsi: READ(16) of addresses up to 2^53", () => {
  assert.is(hex(scsi.read16(0, 1, 512).cdb), "88000000000000000000000000010000");
  assert.is(hex(scsi.read16(2 ** 44 + 7, 2048, 512).cdb), "88000000100000000007000008000000");
  assert.is(hex(scsi.read16(2 ** 33 - 1, 8, 512).cdb), "88000000" + "0001ffffffff" + "000000080000");
  assert.is(scsi.read16(0, 256, 4096).allocationBytes, 1 << 20);
});

test("scsi: the other CDBs", () => {
  assert.is(hex(scsi.testUnitReady().cdb), "00".repeat(16));
  assert.is(hex(scsi.inquiry().cdb), "12000000ff" + "00".repeat(11));
  assert.is(hex(scsi.inquiry(0xb0).cdb), "1201b000ff" + "00".repeat(11));
  assert.is(hex(scsi.readCapacity16().cdb), "9e10" + "00".repeat(11) + "200000");
  assert.is(hex(scsi.reportLuns(4096).cdb), "a00000000000" + "00001000" + "00".repeat(6));
  assert.is(hex(scsi.getLbaStatus(2 ** 32, 1 << 20).cdb), "9e120000000100000000" + "00100000" + "0000");
});

test("scsi: no command that changes the medium can be built", () => {
  const built = [
    scsi.testUnitReady(),
    scsi.inquiry(),
    scsi.readCapacity16(),
    scsi.reportLuns(16),
    scsi.read16(0, 1, 512),
    scsi.getLbaStatus(0, 24),
  ];
  const builders = Object.keys(scsi).filter((name) => !name.startsWith("parse") && name !== "lunField");
  assert.is(builders.length, built.length, "each builder is listed here");
  for (const { cdb } of built) {
    const isRead = [0x00, 0x12, 0x88, 0xa0].includes(cdb[0]) ||
      (cdb[0] === 0x9e && [0x10, 0x12].includes(cdb[1]));
    assert.ok(isRead);
  }
});

function capacity(lastLba: bigint, blockBytes: number, tail = [0, 0x03, 0xc0]): Uint8Array {
  const data = Buffer.alloc(32);
  data.writeBigUInt64BE(lastLba, 0);
  data.writeUInt32BE(blockBytes, 8);
  data.set(tail, 12);
  return data;
}

test("scsi: capacity, up to 64 TiB and more; nonsense is refused", () => {
  assert.equal(scsi.parseCapacity16(capacity(2n ** 37n - 1n, 512)), {
    blocks: 2 ** 37,
    blockBytes: 512,
    physicalBlockBytes: 4096,
    deallocatedReadsZero: true,
  });
  const bad = [capacity(2n ** 64n - 1n, 512), capacity(99n, 0), capacity(99n, 520), capacity(99n, 2 ** 31)];
  for (const data of [...bad, capacity(2n ** 44n, 512), new Uint8Array(8)]) {
    assert.throws(() => scsi.parseCapacity16(data), (error: unknown) => error instanceof ProtocolError);
  }
});

function lbaStatus(...extents: [lba: bigint, blocks: number, status: number][]): Uint8Array {
  const data = Buffer.alloc(8 + 16 * extents.length);
  data.writeUInt32BE(data.length - 4, 0);
  for (const [i, [lba, blocks, status]] of extents.entries()) {
    data.writeBigUInt64BE(lba, 8 + 16 * i);
    data.writeUInt32BE(blocks, 16 + 16 * i);
    data[20 + 16 * i] = status;
  }
  return data;
}

test("scsi: LBA status: as sent, gaps kept, cut at the end of the disk, disorder refused", () => {
  const big = 2n ** 33n;
  const found = scsi.parseLbaStatus(
    lbaStatus([0n, 8, 0], [big, 16, 1], [big + 100n, 999, 2]),
    512,
    2 ** 42 + 51712,
  );
  assert.equal(found, [
    { offsetBytes: 0, lengthBytes: 4096, mapped: true },
    { offsetBytes: 2 ** 42, lengthBytes: 8192, mapped: false },
    { offsetBytes: 2 ** 42 + 51200, lengthBytes: 512, mapped: true },
  ]);
  assert.equal(scsi.parseLbaStatus(lbaStatus([0n, 0, 1]), 512, 4096), []);
  for (const bad of [lbaStatus([8n, 8, 0], [15n, 8, 1]), lbaStatus([8n, 8, 0]), new Uint8Array(4)]) {
    assert.throws(
      () => scsi.parseLbaStatus(bad, 512, 4096),
      (error: unknown) => error instanceof ProtocolError,
    );
  }
});

test("scsi: any bytes as an answer either parse or are a ProtocolError", () => {
  const parsers = [
    scsi.parseCapacity16,
    scsi.parseInquiry,
    scsi.parseSupportedPages,
    scsi.parseSerial,
    scsi.parseMaxTransferBlocks,
    scsi.parseDesignators,
    scsi.parseLuns,
    (data: Uint8Array) => scsi.parseLbaStatus(data, 512, 2 ** 50),
    (data: Uint8Array) => parseSense(data),
  ];
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 120 }), fc.nat(parsers.length - 1), (data, which) => {
      try {
        parsers[which](data);
      } catch (error) {
        assert.instance(error, ProtocolError);
      }
    }),
    { numRuns: 2000 },
  );
});

test("scsi: LUN numbers, single-level", () => {
  assert.is(hex(scsi.lunField(1)), "0001000000000000");
  assert.is(hex(scsi.lunField(300)), "412c000000000000");
  const list = Uint8Array.from([0, 0, 0, 16, 0, 0, 0, 0, ...scsi.lunField(1), ...scsi.lunField(300)]);
  assert.equal(scsi.parseLuns(list), { luns: [1, 300], neededBytes: 24 });
});

test("sense: fixed and descriptor format, also cut short", () => {
  const fixed = fromHex("f0 00 03 00 00 12 34 0a 00000000 11 00 00 000000");
  assert.equal(parseSense(fixed), {
    key: 3,
    asc: 0x11,
    ascq: 0,
    deferred: false,
    information: 0x1234n,
    text: "MEDIUM ERROR, unrecovered read error (3/11/00)",
  });
  const described = fromHex("73 06 29 00 000000 0c 00 0a 80 00 0000000100000002");
  const found = parseSense(described)!;
  assert.equal([found.key, found.asc, found.deferred, found.information], [6, 0x29, true, 2n ** 32n + 2n]);
  assert.is(
    parseSense(fixed.subarray(0, 3))!.text,
    "MEDIUM ERROR, no additional sense information (3/00/00)",
  );
  for (const none of ["", "70", "7000", "720629", "0102030405"]) {
    assert.is(parseSense(fromHex(none)), undefined);
  }
});

function attempts(error: ScsiError): { delays: number[] } {
  const task = new Task(scsi.read16(0, 1, 512), new Uint8Array(512), true, () => {});
  const delays: number[] = [];
  for (;;) {
    const retry = planRetry(task, error, () => 0.5);
    if (retry === undefined) return { delays };
    delays.push(retry.delayMs);
  }
}

test("policy: planRetry bounds each cause and leaves real errors alone", () => {
  const withSense = (key: number, asc = 0, ascq = 0, code = 0x70) =>
    new ScsiError("X", 2, parseSense(Uint8Array.from([code, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq])));
  assert.equal(attempts(withSense(6, 0x29)).delays, Array(16).fill(0));
  assert.is(attempts(new ScsiError("X", 8, undefined)).delays.length, 20);
  assert.ok(
    attempts(new ScsiError("X", 0x28, undefined)).delays.every((delay) => delay > 0 && delay <= 1000),
  );
  assert.is(attempts(withSense(2, 4, 1)).delays.length, 20);
  assert.is(attempts(withSense(0xb)).delays.length, 5);
  for (const final of [withSense(3, 0x11), withSense(5, 0x25), withSense(2, 4, 3), withSense(7, 0x27)]) {
    assert.is(attempts(final).delays.length, 0);
  }
});

test("policy: backoffMs doubles to its bound, with jitter of one half", () => {
  const delays = [0, 1, 2, 3, 9, 5000].map((attempt) => backoffMs(attempt, 100, 1000, () => 1));
  assert.equal(delays, [100, 200, 400, 800, 1000, 1000]);
  assert.is(backoffMs(0, 100, 1000, () => 0), 50);
});

test("policy: keepalive: any byte is life; a ping, then silence, is death", () => {
  const keepalive = new Keepalive(100, 50, 0);
  assert.is(keepalive.check(99), undefined);
  assert.is(keepalive.check(100), "ping");
  keepalive.onPing(7, 100);
  keepalive.onBytes(120);
  assert.is(keepalive.check(169), undefined);
  assert.not(keepalive.onAnswer(8));
  assert.is(keepalive.check(170), "dead");
  assert.ok(keepalive.onAnswer(7));
});

const options: InitiatorOptions = {
  host: "h",
  port: 3260,
  targetName: "iqn.2026-01.test:t",
  initiatorName: "iqn.2026-01.test:i",
  isidQualifier: 0x1234,
};

test("policy: the dispatcher fails what identifies the disk with its connection, and keeps the rest", () => {
  const dispatcher = new Dispatcher(settingsOf(options));
  const issued: Task[] = [];
  const stub = {
    canIssue: true,
    issue: (task: Task) => void issued.push(task),
    abandon() {},
    abandonAll: () => [],
  };
  const outcomes: string[] = [];
  const task = (name: string): Task =>
    new Task(
      scsi.read16(0, 1, 512),
      new Uint8Array(512),
      true,
      (error) => outcomes.push(`${name} ${error?.reason}`),
    );
  const [setup, read] = [task("setup"), task("read")];
  dispatcher.attach(stub);
  dispatcher.submitSetup(setup);
  dispatcher.submit(read);
  assert.equal(issued, [setup]);
  dispatcher.begin();
  dispatcher.detach([setup, read], new ProtocolError("lost"));
  assert.equal(outcomes, ["setup lost"]);
  dispatcher.attach(stub);
  dispatcher.begin();
  assert.is(issued.at(-1), read);
  dispatcher.onTaskDone(read, undefined);
  assert.equal(outcomes, ["setup lost", "read undefined"]);
});

test("policy: settingsOf refuses what cannot be, and never quotes a secret", () => {
  const same = { user: "u", secret: "hush", target: { user: "t", secret: "hush" } };
  const bad: Partial<InitiatorOptions>[] = [
    { port: 0 },
    { isidQualifier: 65536 },
    { lun: 1.5 },
    { targetName: "" },
    { initiatorName: "a\0b" },
    { chap: same },
    { chap: { user: "", secret: "hush" } },
    { maxRecvDataSegmentLength: 100 },
  ];
  for (const change of bad) {
    assert.throws(
      () => settingsOf({ ...options, ...change }),
      (error: unknown) => error instanceof RangeError && !error.message.includes("hush"),
    );
  }
  assert.is(settingsOf({ ...options, lun: undefined }).lun, 1);
});

test("policy: the ISID is stable and holds the qualifier", () => {
  assert.is(hex(isidOf(options)), hex(isidOf({ ...options })));
  assert.match(hex(isidOf(options)), /^80.{6}1234$/);
  assert.is.not(hex(isidOf(options)), hex(isidOf({ ...options, initiatorName: "iqn.2026-01.test:j" })));
});

test("policy: redirect addresses", () => {
  assert.equal(parseTargetAddress("10.0.0.1:3261,1"), { host: "10.0.0.1", port: 3261 });
  assert.equal(parseTargetAddress("[fe80::1]"), { host: "fe80::1", port: 3260 });
  for (const bad of ["", "a b", ":1", "h:0", "h:99999", "fe80::1", "h:1,2,3"]) {
    assert.is(parseTargetAddress(bad), undefined, bad);
  }
});

test("policy: differenceOf names what makes it another disk", () => {
  const disk = {
    sizeBytes: 4096,
    blockBytes: 512,
    physicalBlockBytes: 512,
    serial: "A",
    maxTransferBlocks: 8,
    deallocatedReadsZero: false,
  };
  assert.is(differenceOf(disk, { ...disk, maxTransferBlocks: 9 }), undefined);
  assert.match(differenceOf(disk, { ...disk, serial: "B" })!, /serial is B, it was A/);
  assert.match(differenceOf(disk, { ...disk, sizeBytes: 8192 })!, /sizeBytes/);
});

test.run();
