/** The initiator against the real tgtd. */
import { randomBytes } from "node:crypto";
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type InitiatorOptions, LoginError, ScsiError, Session } from "../../src/iscsi-initiator/mod.ts";
import { needing } from "../helpers/needs.ts";
import { tempFolder } from "../helpers/temp.ts";
import { Tgtd, type TgtdOptions, tgtdPrograms } from "./tgtd.ts";

const test = suite("tgtd");
const withTgtd = needing(test, tgtdPrograms);

/** 24 MiB: 8 MiB of random data, a hole, and at 20 MiB another 1 MiB of data, then a hole. */
const sizeBytes = 24 << 20;
const content = Buffer.alloc(sizeBytes);
content.set(randomBytes(8 << 20));
content.set(randomBytes(1 << 20), 20 << 20);
const file = join(tempFolder("iscsi"), "disk.img");
const fd = openSync(file, "w");
writeSync(fd, content, 0, 8 << 20, 0);
writeSync(fd, content, 20 << 20, 1 << 20, 20 << 20);
ftruncateSync(fd, sizeBytes);
closeSync(fd);

function optionsFor(tgtd: Tgtd): InitiatorOptions {
  return {
    host: "127.0.0.1",
    port: tgtd.port,
    targetName: tgtd.targetName,
    initiatorName: "iqn.2026-01.test:me",
    isidQualifier: 1,
    backoffMinMs: 20,
    backoffMaxMs: 200,
  };
}

async function withTarget(options: Partial<TgtdOptions>, body: (tgtd: Tgtd) => Promise<void>): Promise<void> {
  const tgtd = new Tgtd({ file, ...options });
  try {
    await tgtd.start();
    await body(tgtd);
  } finally {
    await tgtd.kill();
  }
}

async function withSession(
  tgtd: Tgtd,
  options: Partial<InitiatorOptions>,
  body: (session: Session) => Promise<void>,
): Promise<void> {
  const session = new Session({ ...optionsFor(tgtd), ...options });
  try {
    await session.open();
    await body(session);
  } finally {
    await session.close();
  }
}

/** Reads `count` pieces at random places, `depth` at a time, and compares each with the file. */
async function checkRandomReads(
  session: Session,
  count: number,
  depth: number,
  maxBlocks: number,
): Promise<void> {
  const blocks = sizeBytes / 512;
  let left = count;
  const worker = async () => {
    while (left-- > 0) {
      const lengthBlocks = 1 + Math.floor(Math.random() * maxBlocks);
      const offset = Math.floor(Math.random() * (blocks - lengthBlocks)) * 512;
      const into = new Uint8Array(lengthBlocks * 512);
      await session.read(offset, into);
      assert.is(Buffer.compare(content.subarray(offset, offset + into.length), into), 0, `at ${offset}`);
    }
  };
  await Promise.all(Array.from({ length: depth }, worker));
}

withTgtd("reads at many depths and sizes equal the file", async () => {
  await withTarget({}, async (tgtd) => {
    await withSession(tgtd, { maxTasks: 128 }, async (session) => {
      assert.is(session.identity.sizeBytes, sizeBytes);
      assert.is(session.identity.blockBytes, 512);
      assert.is(session.identity.serial, "SER1");
      for (const depth of [1, 4, 32, 200]) await checkRandomReads(session, 2 * depth + 20, depth, 300);
      const whole = new Uint8Array(sizeBytes);
      await session.read(0, whole);
      assert.is(Buffer.compare(content, whole), 0);
      assert.is(session.statistics.unitAttentions, 1);
      assert.is(session.statistics.reconnects, 0);
    });
  });
});

withTgtd("inquiry, designators, LUNs, readiness", async () => {
  await withTarget({ serial: "A-1" }, async (tgtd) => {
    await withSession(tgtd, {}, async (session) => {
      assert.is((await session.inquiry()).product, "VIRTUAL-DISK");
      assert.ok((await session.designators()).some(({ id }) => id === "id-A-1"));
      assert.equal(await session.reportLuns(), [0, 1]);
      await session.testUnitReady();
    });
  });
});

withTgtd("GET LBA STATUS shows the holes, also a few descriptors at a time", async () => {
  await withTarget({}, async (tgtd) => {
    await withSession(tgtd, {}, async (session) => {
      const all = await session.lbaStatus(0);
      assert.equal(all, [
        { offsetBytes: 0, lengthBytes: 8 << 20, mapped: true },
        { offsetBytes: 8 << 20, lengthBytes: 12 << 20, mapped: false },
        { offsetBytes: 20 << 20, lengthBytes: 1 << 20, mapped: true },
        { offsetBytes: 21 << 20, lengthBytes: 3 << 20, mapped: false },
      ]);
      const [second] = await session.lbaStatus(9 << 20, 24);
      assert.not(second.mapped);
      assert.is(second.offsetBytes + second.lengthBytes, 20 << 20);
    });
  });
});

withTgtd("a LUN that is not there: the target's own sense data", async () => {
  await withTarget({}, async (tgtd) => {
    const error = await withSession(tgtd, { lun: 9 }, () => Promise.resolve()).catch((caught) => caught);
    assert.instance(error, ScsiError);
    assert.is((error as ScsiError).sense?.asc, 0x25);
  });
});

const account = ["reader", "reader-secret"] as const;
const outgoing = ["target", "target-secret"] as const;
const chap = { user: account[0], secret: account[1] };

for (const digests of [false, true]) {
  withTgtd(`CHAP one-way and mutual, ${digests ? "with" : "without"} digests`, async () => {
    await withTarget({ account, outgoing, digests }, async (tgtd) => {
      const options = { headerDigest: digests, dataDigest: digests };
      await withSession(tgtd, { ...options, chap }, (session) => checkRandomReads(session, 20, 4, 600));
      const mutual = { ...chap, target: { user: outgoing[0], secret: outgoing[1] } };
      await withSession(
        tgtd,
        { ...options, chap: mutual },
        (session) => checkRandomReads(session, 20, 4, 600),
      );
    });
  });
}

withTgtd("wrong user, wrong secret, no secret, wrong target secret, wrong target: typed errors", async () => {
  await withTarget({ account, outgoing }, async (tgtd) => {
    const cases: [Partial<InitiatorOptions>, string][] = [
      [{ chap: { ...chap, secret: "something-else" } }, "authentication"],
      [{ chap: { ...chap, user: "nobody" } }, "authentication"],
      [{}, "authentication"],
      [{ chap: { ...chap, target: { user: outgoing[0], secret: "not-the-secret" } } }, "authentication"],
      [{ chap, targetName: "iqn.2026-01.test:other" }, "notFound"],
    ];
    for (const [options, failure] of cases) {
      const error = await withSession(tgtd, options, () => Promise.resolve()).catch((caught) => caught);
      assert.instance(error, LoginError);
      assert.is((error as LoginError).failure, failure);
      assert.not.match(error.message, /secret-else|reader-secret|not-the-secret/);
    }
  });
});

withTgtd("a target without accounts does not satisfy an initiator that wants CHAP", async () => {
  await withTarget({}, async (tgtd) => {
    const error = await withSession(tgtd, { chap }, () => Promise.resolve()).catch((caught) => caught);
    assert.instance(error, LoginError);
  });
});

withTgtd("sessions side by side with ISIDs of their own do not disturb each other", async () => {
  await withTarget({}, async (tgtd) => {
    await withSession(
      tgtd,
      { isidQualifier: 1 },
      (one) =>
        withSession(tgtd, { isidQualifier: 2 }, async (two) => {
          await Promise.all([checkRandomReads(one, 40, 8, 100), checkRandomReads(two, 40, 8, 100)]);
          assert.is(one.statistics.reconnects + two.statistics.reconnects, 0);
        }),
    );
  });
});

withTgtd("kill -9 of tgtd under load, restart and set-up: every read ends with the right data", async () => {
  await withTarget({ account }, async (tgtd) => {
    await withSession(tgtd, { chap }, async (session) => {
      for (const depth of [4, 32]) {
        const { bytesRead, reconnects } = session.statistics;
        const reads = checkRandomReads(session, 400, depth, 200);
        while (session.statistics.bytesRead < bytesRead + (2 << 20)) {
          await new Promise((r) => setTimeout(r, 1));
        }
        await tgtd.kill();
        await tgtd.start();
        await reads;
        assert.is(session.statistics.reconnects, reconnects + 1);
      }
    });
  });
});

withTgtd("another disk after the restart: the session closes instead of reading it", async () => {
  const tgtd = new Tgtd({ file });
  const other = new Tgtd({ file, serial: "OTHER" });
  try {
    await tgtd.start();
    await withSession(tgtd, {}, async (session) => {
      await tgtd.kill();
      other.port = tgtd.port;
      await other.start();
      const error = await session.read(0, new Uint8Array(512)).catch((caught) => caught);
      assert.is(error.name, "IdentityError");
      assert.match(error.message, /serial is OTHER, it was SER1/);
    });
  } finally {
    await tgtd.kill();
    await other.kill();
  }
});

withTgtd("an abort while the target is away ends the read; the session goes on when it is back", async () => {
  await withTarget({}, async (tgtd) => {
    await withSession(tgtd, {}, async (session) => {
      await tgtd.kill();
      const controller = new AbortController();
      const read = session.read(0, new Uint8Array(512), { signal: controller.signal });
      controller.abort(new Error("no more time"));
      assert.is(await read.catch((error) => error.message), "no more time");
      await tgtd.start();
      await checkRandomReads(session, 10, 2, 10);
    });
  });
});

withTgtd("pings keep an idle session up", async () => {
  await withTarget({}, async (tgtd) => {
    await withSession(tgtd, { nopIntervalMs: 10, nopTimeoutMs: 10_000 }, async (session) => {
      // Some pings' time; what counts is that nothing happens.
      await new Promise((resolve) => setTimeout(resolve, 200));
      await checkRandomReads(session, 4, 1, 10);
      assert.is(session.statistics.reconnects, 0);
    });
  });
});

test.run();
