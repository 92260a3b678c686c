/** The source through a real sshd, with a real tgtd behind it that listens on loopback only. */
import { execa } from "execa";
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { systemClock } from "../../src/engine/clock.ts";
import type { SourceExport } from "../../src/engine/config.ts";
import { IscsiSource } from "../../src/engine/iscsi-source.ts";
import { ResidencyStore } from "../../src/engine/residency-store.ts";
import { Volume } from "../../src/engine/volume.ts";
import { startDaemon } from "../../src/node-iscsi-target/mod.ts";
import { childrenOf, runs } from "../helpers/children.ts";
import { needing } from "../helpers/needs.ts";
import { until } from "../helpers/until.ts";
import { programsOfSshd, Sshd } from "../helpers/sshd.ts";
import { tempFolder } from "../helpers/temp.ts";
import { MemoryDisk, MemoryMapFile, Random } from "./memory.ts";

const test = suite("tunnel");
const withTunnel = needing(test, [...programsOfSshd, "tgtd", "tgtadm"]);

const blockBytes = 4096;
const sizeBytes = 12 << 20;
const content = randomBytes(sizeBytes);
const file = join(tempFolder("tunnel"), "disk.img");
writeFileSync(file, content);

const sshChildren = () => childrenOf(process.pid, "ssh");
const secrets = { incoming: "secret-one-of-the-tunnel", outgoing: "secret-two-of-the-tunnel" };

/** An export of the file on a loopback address, reached through an sshd. */
async function withExport(
  address: "127.0.0.1" | "::1",
  body: (source: SourceExport, sshd: Sshd) => Promise<void>,
): Promise<void> {
  const sshd = await Sshd.start();
  try {
    const daemon = await startDaemon({ folder: join(tempFolder("tgt"), "d"), portal: { address, port: 0 } });
    try {
      const chap = {
        incoming: { user: "in", secret: secrets.incoming },
        outgoing: { user: "out", secret: secrets.outgoing },
      };
      const names = { targetName: "iqn.2026-01.test:tunnel", serial: "tunnel-1" };
      const { portal } = await daemon.exportDisk({ path: file, ...names, allow: address, chap });
      await body({
        address,
        port: portal.port,
        ...names,
        chap,
        sizeBytes,
        blockBytes: 512,
        holesReadZero: true,
        tunnel: sshd.destination,
      }, sshd);
    } finally {
      await daemon.kill();
    }
  } finally {
    await sshd.stop();
  }
}

async function withSource(
  exported: SourceExport,
  body: (source: IscsiSource, log: string[]) => Promise<void>,
): Promise<void> {
  const log: string[] = [];
  const source = new IscsiSource(exported, {
    initiatorName: "iqn.2026-01.test:me",
    onChange: (text) => log.push(text),
  });
  try {
    await body(source, log);
  } finally {
    await source.close();
  }
  await until(() => sshChildren().length === 0, "no ssh is left");
}

async function volumeOn(source: IscsiSource) {
  const geometry = { sizeBytes, blockBytes };
  const random = new Random(1);
  const disk = new MemoryDisk(new Uint8Array(sizeBytes), random);
  const files = { durable: new MemoryMapFile(), live: new MemoryMapFile() };
  const store = await ResidencyStore.create(files, {
    ...geometry,
    volumeId: "v",
    bootId: "b",
    localZero: true,
  });
  const volume = new Volume({ geometry, source, disk, store, clock: systemClock, activation: "explicit" });
  return { volume, store, disk };
}

for (const address of ["127.0.0.1", "::1"] as const) {
  withTunnel(`a volume reads and syncs through ssh, to ${address} on the far side`, async () => {
    await withExport(address, async (exported) => {
      await withSource(exported, async (source) => {
        const { volume, store, disk } = await volumeOn(source);
        await until(() => source.isConnected, "both sessions are logged in");
        assert.is(sshChildren().length, 2, "a connection for each session");
        await volume.activate();
        const piece = Buffer.concat(await volume.read(5 << 20, 300_000));
        assert.is(Buffer.compare(piece, content.subarray(5 << 20, (5 << 20) + 300_000)), 0);
        volume.sync.start();
        await until(() => volume.isSynced, "everything is here");
        assert.is(Buffer.compare(disk.bytes, content), 0);
        assert.is(store.counters.refetchedBytes, 0);
        await volume.close();
      });
    });
  });
}

withTunnel("killed connections: reads wait, are made again, and nothing crosses twice", async () => {
  await withExport("127.0.0.1", async (exported, sshd) => {
    await withSource(exported, async (source, log) => {
      const { volume, store, disk } = await volumeOn(source);
      await until(() => source.isConnected, "both sessions are logged in");
      await volume.activate();
      volume.sync.setRate(8 << 20);
      volume.sync.start();
      const { residentCount } = store.map;
      for (let round = 1; round <= 2; round++) {
        await until(() => store.map.residentCount > residentCount + 200 * round, "it goes on");
        for (const pid of sshChildren()) process.kill(pid, "SIGKILL");
        await until(() => !source.isConnected, "it is noticed");
      }
      await until(() => source.isConnected, "both are logged in again");
      // Down and up again while a read of what is not here waits.
      volume.sync.pause();
      await sshd.stop();
      for (const pid of sshChildren()) process.kill(pid, "SIGKILL");
      await until(() => source.lastError?.includes("refuses the ssh connection") ?? false, "it says why");
      let isDone = false;
      const read = volume.read(sizeBytes - 65_536, 65_536).then((parts) => (isDone = true, parts));
      await until(() => sshChildren().length > 0, "it tries again");
      await until(() => sshChildren().length === 0, "in vain");
      assert.is(isDone, false);
      await sshd.restart();
      assert.is(Buffer.compare(Buffer.concat(await read), content.subarray(-65_536)), 0);
      volume.sync.setRate(Infinity);
      volume.sync.start();
      await until(() => volume.isSynced, "everything is here");
      assert.is(Buffer.compare(disk.bytes, content), 0);
      assert.is(store.counters.refetchedBytes, 0);
      assert.ok(
        log.some((line) => /no tunnel through far: ssh to far was ended by SIGKILL/.test(line)),
        log.join("\n"),
      );
      await volume.close();
    });
  });
});

/** Each: what is wrong, and what is said then. */
const troubles: Record<
  string,
  { spoil(sshd: Sshd, exported: SourceExport): Promise<Partial<SourceExport>>; words: RegExp }
> = {
  "an sshd that forbids forwarding": {
    async spoil(sshd) {
      await sshd.restart(["AllowTcpForwarding no", "Banner /etc/hostname"]);
      return {};
    },
    words:
      /^no answer from 127\.0\.0\.1:\d+: no tunnel through far: the sshd of far does not allow forwarding/,
  },
  "nothing that listens on the far side": {
    spoil: () => Promise.resolve({ port: 1 }),
    words: /no tunnel through far: nothing listens at this address on far \(connection refused\)/,
  },
  "a host key that is not known": {
    spoil(sshd) {
      sshd.knowHostKey(undefined);
      return Promise.resolve({});
    },
    words: /no tunnel through far: the host key of far is not known here/,
  },
  "another host key than the known one": {
    spoil(sshd) {
      sshd.knowHostKey("user_key");
      return Promise.resolve({});
    },
    words: /no tunnel through far: the host key of far is not the one that is known/,
  },
  "a key that is not taken": {
    async spoil(sshd) {
      await sshd.restart(["AuthorizedKeysFile none"]);
      return {};
    },
    words: /no tunnel through far: ssh may not log in to far/,
  },
  "an address that cannot be reached from there": {
    spoil: () => Promise.resolve({ address: "255.255.255.255" }),
    words: /no tunnel through far: far cannot connect to this address: \S+/,
  },
};

for (const [what, { spoil, words }] of Object.entries(troubles)) {
  withTunnel(`${what}: the source's error says so, and it is tried again`, async () => {
    await withExport("127.0.0.1", async (exported, sshd) => {
      await withSource({ ...exported, ...await spoil(sshd, exported) }, async (source, log) => {
        await until(() => log.filter((line) => line.includes("waiting (")).length >= 3, "it tries");
        assert.match(source.lastError ?? "", words);
        assert.is(source.isConnected, false);
        assert.is(source.refusal, undefined);
      });
    });
  });
}

withTunnel("no secret is in the arguments of ssh", async () => {
  await withExport("127.0.0.1", async (exported) => {
    await withSource(exported, async (source) => {
      await until(() => source.isConnected, "both sessions are logged in");
      const { stdout } = await execa("ps", ["-o", "args=", "-p", sshChildren().join(",")]);
      assert.match(stdout, new RegExp(`-W 127\\.0\\.0\\.1:${exported.port} -- far`));
      for (const secret of [...Object.values(secrets), exported.targetName]) {
        assert.is(stdout.includes(secret), false);
      }
    });
  });
});

for (const signal of ["SIGKILL", "SIGTERM"] as const) {
  withTunnel(`no ssh outlives its owner that is ended by ${signal}`, async () => {
    await withExport("127.0.0.1", async (exported) => {
      const script = join(import.meta.dirname!, "tunnel-owner.ts");
      const given = "Deno" in globalThis ? ["run", "-A", script] : [script];
      const owner = execa(process.execPath, given, { input: JSON.stringify(exported), reject: false });
      let said = "";
      owner.stdout.on("data", (chunk) => said += chunk);
      await until(() => said.includes("connected"), "the owner is logged in");
      const children = childrenOf(owner.pid!, "ssh");
      assert.is(children.length, 2);
      owner.kill(signal);
      await owner;
      await until(() => !children.some(runs), "its children end");
    });
  });
}

test.run();
