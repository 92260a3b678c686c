/** Targets that answer reads wrongly, in PDUs that can be followed: a read ends right, or with a typed error. */
import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { IscsiError } from "../../src/iscsi-initiator/mod.ts";
import { bytesOf, fillBlocks, isRead } from "./scripted-target.ts";
import { checkRead, errorOf, onFirstRead, withSession } from "./sessions.ts";

const test = suite("targets that answer reads wrongly");

test("a target failure is tried again, then an error", async () => {
  await withSession({}, async (session, target) => {
    let reads = 0;
    target.hook = (request, peer) => {
      if (!isRead(request)) return false;
      reads++;
      peer.send(peer.response(request.tag, 0, undefined, [[2, 1, 1]]));
      return true;
    };
    assert.is((await errorOf(session.read(0, new Uint8Array(512)))).name, "TargetFailureError");
    assert.is(reads, 6);
  });
});

test("a command that is rejected each time fails in the end", async () => {
  await withSession({}, async (session, target) => {
    target.hook = (request, peer) => {
      if (isRead(request)) peer.send(peer.reject(9, bytesOf(request)));
      return isRead(request);
    };
    assert.match((await errorOf(session.read(0, new Uint8Array(512)))).message, /rejected READ\(16\)/);
  });
});

test("any damaged byte in a header: the right data or a typed error, in bounded time", async () => {
  const options = { taskTimeoutMs: 40, nopIntervalMs: 15, nopTimeoutMs: 25 };
  const damage = fc.tuple(fc.nat(5), fc.nat(47), fc.integer({ min: 1, max: 255 }));
  await withSession(options, async (session, target) => {
    await fc.assert(
      fc.asyncProperty(damage, async ([which, at, mask]) => {
        target.hook = onFirstRead((request, peer) => {
          const data = new Uint8Array(request.expectedBytes);
          fillBlocks(data, 3);
          const pdus: Buffer[] = [];
          for (let from = 0; from < data.length; from += 1024) {
            pdus.push(peer.dataIn(request.tag, from, from / 1024, data.subarray(from, from + 1024)));
          }
          pdus.push(peer.response(request.tag));
          pdus[which % pdus.length][at] ^= mask;
          peer.send(...pdus);
        });
        try {
          await checkRead(session, 3, 8);
        } catch (error) {
          assert.instance(error, IscsiError);
        }
      }),
      { numRuns: 60 },
    );
    target.hook = () => {};
    await checkRead(session, 3, 8);
  });
});

test.run();
