/**
 * A volume on a source that misbehaves: nothing is answered or kept that did not end with GOOD, the other
 * session goes on, the reason can be read, and all is well when the source is sane again.
 */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { systemClock } from "../../src/engine/clock.ts";
import type { SourceExport } from "../../src/engine/config.ts";
import { IscsiSource } from "../../src/engine/iscsi-source.ts";
import { ResidencyStore } from "../../src/engine/residency-store.ts";
import { Volume } from "../../src/engine/volume.ts";
import { until } from "../helpers/until.ts";
import {
  type Field,
  fillBlocks,
  fixedSense,
  type Hook,
  isRead,
  type Request,
  ScriptedTarget,
  type TcpPeer,
} from "../iscsi-initiator/scripted-target.ts";
import { MemoryDisk, MemoryMapFile, Random } from "./memory.ts";

const test = suite("a source that misbehaves");

const blockBytes = 4096;
const sizeBytes = 4 << 20;
const content = new Uint8Array(sizeBytes);
fillBlocks(content, 0);
const chap = {
  incoming: { user: "in", secret: "secret-of-in" },
  outgoing: { user: "out", secret: "secret-of-out" },
};
const targetDisk = { serial: "HOSTILE-1", blocks: sizeBytes / 512, maxTransferBlocks: 0, fill: fillBlocks };
/** ISID qualifiers of the two sessions. */
const lanes = { demand: 1, sync: 2 };

/** Refuses to store anything but the source's content: all that is ever written here was fetched. */
class GuardedDisk extends MemoryDisk {
  override write(offset: number, data: Uint8Array): Promise<void> {
    const expected = content.subarray(offset, offset + data.length);
    if (Buffer.compare(data, expected) !== 0) this.isSpoilt = true;
    return super.write(offset, data);
  }
  isSpoilt = false;
}

interface Parts {
  readonly target: ScriptedTarget;
  readonly source: IscsiSource;
  readonly volume: Volume;
  readonly disk: GuardedDisk;
  readonly store: ResidencyStore;
}

function exportOf(target: ScriptedTarget): SourceExport {
  const { targetName, port } = target;
  const who = { targetName, address: "127.0.0.1", port, serial: targetDisk.serial, chap };
  return { ...who, sizeBytes, blockBytes: 512, holesReadZero: true, tunnel: null };
}

async function healthyTarget(): Promise<ScriptedTarget> {
  const target = new ScriptedTarget();
  Object.assign(target, { chap, disk: targetDisk });
  await target.start();
  return target;
}

/** A volume that was handed over, on a target that `setUp` may have spoilt. */
async function withVolume(
  body: (parts: Parts) => Promise<void>,
  setUp: (target: ScriptedTarget) => void = () => {},
): Promise<void> {
  const target = await healthyTarget();
  setUp(target);
  const source = new IscsiSource(exportOf(target), { initiatorName: "iqn.2026-01.test:me", onChange() {} });
  const geometry = { sizeBytes, blockBytes };
  const disk = new GuardedDisk(new Uint8Array(sizeBytes), new Random(1));
  const files = { durable: new MemoryMapFile(), live: new MemoryMapFile() };
  const names = { volumeId: "v", bootId: "b", localZero: true };
  const store = await ResidencyStore.create(files, { ...geometry, ...names });
  // Small, so that a sync which hangs holds up only a part of the disk.
  const syncLimits = { chunkBytes: 65_536, fetches: 4, inFlightBytes: 1 << 18, retryMs: 50 };
  const parts = { geometry, source, disk, store, clock: systemClock, syncLimits };
  const volume = new Volume({ ...parts, activation: "explicit" });
  try {
    await volume.activate();
    await body({ target, source, volume, disk, store });
    assert.not(disk.isSpoilt, "only what the source holds was kept");
  } finally {
    await source.close();
    await volume.close();
    await target.stop();
  }
}

async function checkRead(volume: Volume, offset: number, length: number): Promise<void> {
  const read = Buffer.concat(await volume.read(offset, length));
  assert.is(Buffer.compare(read, content.subarray(offset, offset + length)), 0, `bytes from ${offset} on`);
}

async function codeOf(promise: Promise<unknown>): Promise<unknown> {
  const error = await promise.then(() => undefined, (caught) => caught);
  return (error as { code?: unknown } | undefined)?.code;
}

const of =
  (lane: keyof typeof lanes, act: (request: Request, peer: TcpPeer) => void): Hook => (request, peer) => {
    if (!isRead(request) || peer.isidQualifier !== lanes[lane]) return false;
    act(request, peer);
    return true;
  };

/** For one read of the lane only. */
function once(lane: keyof typeof lanes, act: (request: Request, peer: TcpPeer) => void): Hook {
  let isDone = false;
  const hook = of(lane, act);
  return (request, peer) => !isDone && (isDone = hook(request, peer) === true);
}

const garbage = (request: Request, peer: TcpPeer) =>
  peer.dataIn(request.tag, 0, 0, new Uint8Array(request.expectedBytes).fill(0xee));
const underflow: Field[] = [[1, 1, 0x82], [44, 4, 4096]];

const failing: Record<string, (request: Request, peer: TcpPeer) => void> = {
  "garbage, then a medium error": (request, peer) =>
    peer.send(garbage(request, peer), peer.response(request.tag, 2, fixedSense(3, 0x11, 0))),
  "garbage, then a status that is not defined": (request, peer) =>
    peer.send(garbage(request, peer), peer.response(request.tag, 0x77)),
  "GOOD without data": (request, peer) => peer.send(peer.response(request.tag)),
  "GOOD, and a residual for garbage": (request, peer) =>
    peer.send(garbage(request, peer), peer.response(request.tag, 0, undefined, underflow)),
};

for (const [what, act] of Object.entries(failing)) {
  test(`${what}: EIO, nothing is kept, and the next read is right`, async () => {
    await withVolume(async ({ target, volume, disk, store }) => {
      target.hook = once("demand", act);
      assert.is(await codeOf(volume.read(65_536, 4096)), "EIO");
      assert.is(store.map.residentCount, 0);
      assert.ok(disk.bytes.every((byte) => byte === 0));
      await checkRead(volume, 65_536, 4096);
      assert.is(target.peers.length, 2, "the sessions went on");
    });
  });
}

const losing: Record<string, (request: Request, peer: TcpPeer) => void> = {
  "garbage, then the end": (request, peer) => void peer.socket.end(garbage(request, peer)),
  "half of the data, then the end": (request, peer) =>
    void peer.socket.end(Buffer.concat(peer.dataOf(request)).subarray(0, 5000)),
  "all data, then the end": (request, peer) => void peer.socket.end(Buffer.concat(peer.dataOf(request))),
  "garbage that is not iSCSI": (_, peer) => peer.send(Buffer.alloc(100_000, 0xff)),
  "garbage, then the data": (request, peer) => peer.send(garbage(request, peer), ...peer.dataOf(request)),
  "the data, out of order": (request, peer) => peer.send(...peer.dataOf(request).reverse()),
  "a Reject": (request, peer) =>
    peer.send(peer.reject(4, new Uint8Array(request.header.buffer as ArrayBuffer))),
  "that it drops the session": (_, peer) => peer.send(peer.asyncMessage(3)),
};

for (const [what, act] of Object.entries(losing)) {
  test(`${what}: the read waits for the next connection, and the sync goes on`, async () => {
    await withVolume(async ({ target, source, volume, disk, store }) => {
      target.hook = once("demand", act);
      const read = checkRead(volume, 1 << 20, 200_000);
      volume.sync.start();
      await read;
      await until(() => volume.isSynced, "everything is here");
      assert.is(Buffer.compare(disk.bytes, content), 0);
      assert.is(store.counters.refetchedBytes, 0);
      await until(() => source.isConnected, "both sessions are there again");
      assert.is(source.lastError, undefined);
      assert.is(target.peers.filter((peer) => peer.isidQualifier === lanes.sync).length, 1);
    });
  });
}

test("a sync session that is never answered: demand reads go on, and it ends when the target does", async () => {
  await withVolume(async ({ target, volume, disk }) => {
    target.hook = of("sync", () => {});
    volume.sync.start();
    await until(() => target.requests.some((request) => isRead(request)), "the sync has begun");
    for (let offset = sizeBytes / 2; offset < sizeBytes; offset += 1 << 18) {
      await checkRead(volume, offset, 8192);
    }
    target.hook = () => {};
    for (const { socket } of target.peers) socket.destroy();
    await until(() => volume.isSynced, "everything is here");
    assert.is(Buffer.compare(disk.bytes, content), 0);
  });
});

const refusing: Record<string, readonly [setUp: (target: ScriptedTarget) => void, says: RegExp]> = {
  "closes at once": [
    (target) => target.onConnect = (peer) => void peer.socket.destroy(),
    /closed the connection|connection lost|no answer/,
  ],
  "is a web server": [
    (target) =>
      target.onConnect = (peer) => peer.send(Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n".repeat(40))),
    /bytes in one PDU|opcode/,
  ],
  "refuses the login": [
    (target) =>
      target.hook = (
        request,
        peer,
      ) => (request.opcode === 3 && peer.send(peer.loginRefusal(request, 3, 1)), true),
    /out of service for now \(status 3\/1\)/,
  ],
  "cannot prove who it is": [
    (target) => target.loginText = (text) => text.replace(/CHAP_R=0x./, "CHAP_R=0xz"),
    /could not prove who it is \(mutual CHAP\)/,
  ],
  "wants no authentication": [
    (target) => target.loginText = (text) => text.replace("AuthMethod=CHAP", "AuthMethod=None"),
    /does not authenticate with CHAP/,
  ],
  "sends the login round in circles": [
    (target) =>
      target.hook = (request, peer) => {
        if (request.opcode === 3) {
          peer.send(
            peer.loginRefusal(request, 1, 1, `TargetAddress=127.0.0.1:${target.port},1\0`),
          );
        }
        return true;
      },
    /more than 4 redirects in a row/,
  ],
};

for (const [what, [setUp, says]] of Object.entries(refusing)) {
  test(`a target that ${what}: said, waited out, and no read fails`, async () => {
    await withVolume(async ({ target, source, volume, store }) => {
      const read = checkRead(volume, 12_288, 4096);
      await until(() => says.test(source.lastError ?? ""), `it says so, not ${source.lastError}`);
      assert.is(source.refusal, undefined);
      assert.not(target.requests.some((request) => isRead(request)));
      assert.is(store.map.residentCount, 0);
      Object.assign(target, { onConnect() {}, hook() {}, loginText: (text: string) => text });
      await read;
      await until(() => source.lastError === undefined, "both sessions are there");
    }, setUp);
  });
}

for (const change of [{ serial: "HOSTILE-2" }, { blocks: targetDisk.blocks + 8 }]) {
  test(`another disk after a reconnect (${Object.keys(change)}): refused, until the export is mended`, async () => {
    await withVolume(async ({ target, source, volume }) => {
      await checkRead(volume, 0, 4096);
      target.disk = { ...targetDisk, ...change, fill: (into) => void into.fill(0xee) };
      for (const { socket } of target.peers) socket.destroy();
      const read = checkRead(volume, 1 << 20, 65_536);
      await until(() => source.refusal !== undefined, "it is refused");
      assert.match(source.refusal!, /another disk/);
      assert.match(source.lastError!, /another disk/);
      const mended = await healthyTarget();
      await source.replace(exportOf(mended));
      await read;
      assert.is(source.refusal, undefined);
      await until(() => source.isConnected, "both sessions are there");
      await source.close();
      await mended.stop();
    });
  });
}

test("another disk from the start: refused, and nothing is read from it", async () => {
  await withVolume(async ({ target, source, volume }) => {
    const read = volume.read(0, 4096).catch((error) => error);
    await until(() => source.refusal !== undefined, "it is refused");
    assert.match(source.refusal!, /shows another disk: 4194304 bytes, serial HOSTILE-2, not 4194304 bytes/);
    assert.not(target.requests.some((request) => isRead(request)));
    await source.close();
    assert.instance(await read, Error);
  }, (target) => target.disk = { ...targetDisk, serial: "HOSTILE-2" });
});

const extentAnswers: Record<string, Uint8Array> = {
  "nothing": new Uint8Array(),
  "half a header": new Uint8Array(5),
  "a length without extents": Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0),
  "extents of no blocks": Uint8Array.of(0, 0, 0, 36, 0, 0, 0, 0, ...new Uint8Array(32)),
  "an extent beyond the disk": Uint8Array.of(
    0,
    0,
    0,
    20,
    0,
    0,
    0,
    0,
    255,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    9,
    1,
    0,
    0,
    0,
  ),
};

for (const [what, answer] of Object.entries(extentAnswers)) {
  test(`${what} as the extents: counted as mapped, everything is fetched`, async () => {
    await withVolume(async ({ target, source, volume, disk }) => {
      target.hook = (request, peer) => {
        const isAsked = request.opcode === 1 && request.cdb[0] === 0x9e && request.cdb[1] === 0x12;
        if (isAsked) peer.answerWith(request, answer);
        return isAsked;
      };
      assert.not((await source.extents(0))?.some((extent) => !extent.mapped));
      volume.sync.start();
      await until(() => volume.isSynced, "everything is here");
      assert.is(Buffer.compare(disk.bytes, content), 0);
    });
  });
}

test.run();
