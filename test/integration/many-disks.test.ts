/** Several disks in one migration, with real tgtds and engines. */
import { existsSync, readFileSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type DestinationEntry, type Host, localHost } from "../../src/role/mod.ts";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { Dlsm } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { startWriter } from "../helpers/writer.ts";

const test = suite("many disks");
const withTgt = needing(test, ["tgtd"]);

/** `--disk` for each of so many disks; disk N has data in its first N + 1 MiB, and 16 MiB in all. */
function makeDisks(dlsm: Dlsm, count: number): string[] {
  return Array.from({ length: count }, (_, at) => {
    makeDisk(dlsm.path(`src${at}`), 16, Array.from({ length: at + 1 }, (_, mib) => mib));
    return [`--disk`, `${dlsm.path(`src${at}`)}=${dlsm.path(`dst${at}`)}`];
  }).flat();
}

function requireSame(dlsm: Dlsm, count: number): void {
  for (let at = 0; at < count; at++) {
    const [from, to] = ["src", "dst"].map((name) => readFileSync(dlsm.path(`${name}${at}`)));
    assert.ok(from.equals(to), `disk ${at}`);
  }
}

async function withDlsm(body: (dlsm: Dlsm) => Promise<void>): Promise<void> {
  const dlsm = new Dlsm();
  try {
    await body(dlsm);
  } finally {
    await dlsm.close();
  }
}

withTgt("three disks move together, are verified, and leave nothing behind", () =>
  withDlsm(async (dlsm) => {
    const { stdout } = await dlsm.ok("migrate", ...makeDisks(dlsm, 3), "--verify", "--json");
    const last = JSON.parse(stdout.trim().split("\n").at(-1)!);
    assert.is(last.phase, "done");
    assert.equal(
      last.disks.map(({ source }: { source: string }) => source),
      [0, 1, 2].map((at) => dlsm.path(`src${at}`)),
    );
    for (const [at, disk] of last.disks.entries()) {
      assert.equal([disk.fetchedBytes.sync, disk.refetchedBytes], [(at + 1) * MiB, 0]);
    }
    assert.is(last.verifiedBytes, 3 * 16 * MiB);
    requireSame(dlsm, 3);
    await dlsm.nothingLeft();
  }));

withTgt(
  "one hand-off for all: not before dlsm activate, and then every disk",
  () =>
    withDlsm(async (dlsm) => {
      const { stdout } = await dlsm.ok(
        "migrate",
        ...makeDisks(dlsm, 2),
        "--handoff",
        "manual",
        "--detach",
        "--json",
      );
      const { id, phase, disks } = JSON.parse(stdout);
      assert.equal([phase, disks.length], ["attached", 2]);
      assert.ok(disks.every(({ nbdUri }: { nbdUri: string }) => nbdUri.includes(`/${id}-`)));
      const writer = await startWriter(dlsm.path("src1"));
      try {
        const refused = await dlsm.run("activate", id);
        assert.is(refused.exitCode, 3);
        assert.match(refused.stderr, /src1/);
        assert.is((await dlsm.status(id))!.phase, "attached", "neither disk");
      } finally {
        await writer.stop();
      }
      await dlsm.ok("activate", id);
      await dlsm.until(id, (status) => status === undefined, "done");
      requireSame(dlsm, 2);
      await dlsm.nothingLeft();
    }),
);

withTgt("a disk that is in use refuses all of them, and nothing is changed", () =>
  withDlsm(async (dlsm) => {
    const disks = makeDisks(dlsm, 3);
    const writer = await startWriter(dlsm.path("src2"));
    try {
      const { exitCode, stderr } = await dlsm.run("migrate", ...disks);
      assert.is(exitCode, 3);
      assert.match(stderr, /src2 can still be written/);
    } finally {
      await writer.stop();
    }
    await dlsm.nothingLeft();
    assert.equal([0, 1, 2].filter((at) => existsSync(dlsm.path(`dst${at}`))), []);
  }));

withTgt(
  "the limit is for all disks together, and what one leaves the others get",
  () =>
    withDlsm(async (dlsm) => {
      const total = 2 * MiB;
      const args = ["--bwlimit", "2MiB/s", "--detach", "--json", "--hold-cutover"];
      const { stdout } = await dlsm.ok("migrate", ...makeDisks(dlsm, 2), ...args);
      const { id } = JSON.parse(stdout);
      const { DLSM_STATE_DIR: state, DLSM_RUN_DIR: run } = dlsm.environment;
      const host: Host = await localHost({ state, run });
      try {
        const entries = () => host.ask("destination.list", { id });
        const limits = (all: readonly DestinationEntry[]) =>
          all.map(({ engine }) => engine?.limitBytesPerSecond);
        assert.equal(limits(await entries()), [total / 2, total / 2]);
        // Disk 0 has half of disk 1's data.
        await dlsm.until(
          id,
          (status) => status!.disks[0].residentBytes === 16 * MiB,
          "the first one is synced",
        );
        assert.ok((await dlsm.status(id))!.disks[1].fetchedBytes.sync > 0, "the other one did not wait");
        await dlsm.ok("limit", id, "1MiB/s");
        const sum = (await entries()).filter(({ engine }) => engine?.state !== "synced")
          .reduce((rate, { engine }) => rate + engine!.limitBytesPerSecond!, 0);
        assert.ok(sum <= MiB, `${sum} B/s`);
        await dlsm.ok("limit", id, "off");
        await dlsm.until(id, (status) => status!.phase === "released", "everything is here");
      } finally {
        await host.close();
      }
      await dlsm.ok("cutover", id);
      requireSame(dlsm, 2);
      await dlsm.nothingLeft();
    }),
);

withTgt(
  "a limit that the disks had is shared anew when one of them is synced",
  () =>
    withDlsm(async (dlsm) => {
      makeDisk(dlsm.path("src0"), 16, []);
      makeDisk(dlsm.path("src1"), 16, [0, 1, 2, 3, 4, 5, 6, 7]);
      const disks = [0, 1].flatMap((at) => ["--disk", `${dlsm.path(`src${at}`)}=${dlsm.path(`dst${at}`)}`]);
      const { stdout } = await dlsm.ok("migrate", ...disks, "--bwlimit", "2MiB/s", "--detach", "--json");
      const { id } = JSON.parse(stdout);
      const { DLSM_STATE_DIR: state, DLSM_RUN_DIR: run } = dlsm.environment;
      const host: Host = await localHost({ state, run });
      try {
        let seen: number | null | undefined;
        const deadline = performance.now() + 30_000;
        while (seen !== 2 * MiB && performance.now() < deadline) {
          const all = await host.ask("destination.list", { id });
          if (all.length === 0) break;
          seen = all.find(({ id: disk }) => disk.endsWith("-2"))?.engine?.limitBytesPerSecond ?? seen;
        }
        assert.is(seen, 2 * MiB);
      } finally {
        await host.close();
      }
      await dlsm.ok("limit", id, "off");
      await dlsm.until(id, (status) => status === undefined, "done");
      requireSame(dlsm, 2);
      await dlsm.nothingLeft();
    }),
);

withTgt(
  "abort takes all disks away, also when their set-up was cut short between two of them",
  () =>
    withDlsm(async (dlsm) => {
      const command = dlsm.start("migrate", ...makeDisks(dlsm, 4), "--handoff", "manual", "--json");
      let id: string | undefined;
      const { DLSM_STATE_DIR: state, DLSM_RUN_DIR: run } = dlsm.environment;
      const host = await localHost({ state, run });
      try {
        const deadline = performance.now() + 30_000;
        for (let attached = 0; attached < 1;) {
          if (performance.now() > deadline) throw new Error("nothing was attached");
          const entries = existsSync(state) ? await host.ask("destination.list", {}) : [];
          attached = entries.filter((entry) => entry.state === "attached").length;
          id = entries[0]?.id.split("-")[0];
        }
      } finally {
        command.kill("SIGKILL");
        await host.close();
      }
      await command;
      await dlsm.ok("abort", id!);
      await dlsm.nothingLeft();
      assert.equal([0, 1, 2, 3].filter((at) => existsSync(dlsm.path(`dst${at}`))), []);
    }),
);

test.run();
