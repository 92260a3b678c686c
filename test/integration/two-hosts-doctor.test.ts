/** `dlsm doctor` over ssh, for hosts with networks of their own. */
import { readFileSync, rmSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { HostFinding } from "../../src/doctor/mod.ts";
import { makeDisk } from "../helpers/disk.ts";
import { kill, type Ran } from "../helpers/dlsm.ts";
import { programsOfHosts, type TestHost, withNetwork } from "../helpers/hosts/mod.ts";
import { needing } from "../helpers/needs.ts";

const test = suite("doctor of two hosts");
const withHosts = needing(test, [...programsOfHosts, "tgtd"], { root: true });
const both = ["root@node1", "root@node2"];

function read({ stdout }: Ran) {
  const objects = stdout.trim().split("\n").map((line) => JSON.parse(line));
  const findings: HostFinding[] = objects.filter((object) => !("error" in object));
  const of = (host: string, check: string) =>
    findings.filter((finding) => finding.host === host && finding.check === check);
  return { findings, of, strays: findings.filter(({ level }) => level === "stray") };
}

async function endAll(host: TestHost, what: RegExp): Promise<void> {
  const found = host.processes().filter(({ command }) => what.test(command));
  assert.is.not(found.length, 0, JSON.stringify(host.processes()));
  for (const { pid } of found) kill(pid, "SIGKILL");
  await host.wait(() => !host.processes().some(({ command }) => what.test(command)), "they end");
}

withHosts("both are examined from a third, and what is between them; nothing is left of that", async () => {
  await withNetwork(["node1", "node2", "node3"], async ({ node1, node2, node3 }) => {
    const { findings, of, strays } = read(await node3.ok("doctor", ...both, "--json"));
    assert.equal([...new Set(findings.map(({ host }) => host))], both);
    assert.equal(strays, []);
    for (const [from, to] of [both, both.toReversed()] as [string, string][]) {
      assert.equal(of(from, "ssh-between").map(({ level, subject }) => [level, subject]), [
        ["ok", to],
        ["ok", `root@${node3.address}`],
      ]);
      assert.equal(of(from, "portal").map(({ level, subject }) => [level, subject]), [["ok", to]]);
      assert.equal(of(from, "clock").map(({ level }) => level), ["ok"]);
      assert.match(of(from, "state-folder")[0]!.subject, from === "root@node1" ? node1.folder : node2.folder);
    }
    await Promise.all([node1, node2, node3].map((host) => host.nothingLeft()));
  });
});

withHosts(
  "one out of reach: exit code 3, the other is examined; keys that are missing are told",
  async () => {
    await withNetwork(["node1", "node2"], async ({ node1, node2 }) => {
      // Nobody may log in on node1.
      await node1.startSshd(["AuthorizedKeysFile=none"]);
      const ran = await node1.dlsm("doctor", "root@node2", "root@nowhere", "--json");
      assert.is(ran.exitCode, 3, ran.stderr);
      const { of } = read(ran);
      assert.is(of("root@nowhere", "reach")[0]!.level, "missing");
      assert.is(of("root@node2", "tgt")[0]!.level, "ok");
      const [back] = of("root@node2", "ssh-between");
      assert.equal([back!.level, back!.subject], ["note", `root@${node1.address}`]);
      assert.match(back!.remedy!, "ssh-copy-id");
      await node2.stopSshd();
      const text = await node1.dlsm("doctor", "root@node2");
      assert.is(text.exitCode, 3);
      assert.match(text.stdout, /^root@node2\n {2}missing +reach: .*; to do: /);
    });
  },
);

withHosts(
  "--clean beside a migration through a tunnel changes nothing on either host, and it finishes",
  async () => {
    await withNetwork(["node1", "node2"], async ({ node1, node2 }) => {
      const [source, destination] = [node1.path("a.img"), node2.path("b.img")];
      makeDisk(source, 4, [0, 2]);
      const { stdout } = await node2.ok(
        ...["migrate", `root@node1:${source}`, destination],
        ...["--tunnel", "--bwlimit", "64KiB/s", "--detach", "--json"],
      );
      const { id } = JSON.parse(stdout.trim().split("\n").at(-1)!);
      const parts = () =>
        [node1, node2].map((host) =>
          host.processes().filter(({ command }) => /tgtd|engine|drive|ssh .*-W/.test(command)).map((
            { pid },
          ) => pid)
        );
      await node2.until(id, (status) => status?.phase === "active", "it is active");
      await node2.wait(() => parts().flat().length >= 5, "tgtd, engine, driver and two tunnels run");
      const before = parts();
      assert.equal(read(await node1.ok("doctor", ...both, "--clean", "--json")).strays, []);
      assert.equal(parts(), before);
      await node2.ok("limit", id, "off");
      await node2.until(id, (status) => status === undefined, "done");
      assert.ok(readFileSync(destination).equals(readFileSync(source)));
      // It takes note of what ended in the background.
      assert.equal(await node2.status(), []);
      await Promise.all([node1, node2].map((host) => host.nothingLeft()));
    });
  },
);

withHosts(
  "an export whose destination knows nothing of it is told, and a tgtd without a record cleaned",
  async () => {
    await withNetwork(["node1", "node2"], async ({ node1, node2 }) => {
      makeDisk(node1.path("a.img"), 4, [0]);
      const { stdout } = await node1.ok(
        "migrate",
        node1.path("a.img"),
        `root@node2:${node2.path("b.img")}`,
        ...["--handoff", "manual", "--detach", "--json"],
      );
      const { id } = JSON.parse(stdout.trim().split("\n").at(-1)!);
      assert.equal(read(await node1.ok("doctor", ...both, "--json")).strays, []);
      await endAll(node2, / engine \/| drive /);
      for (const folder of ["DLSM_STATE_DIR", "DLSM_RUN_DIR"]) {
        rmSync(node2.env[folder]!, { recursive: true });
      }
      const { strays } = read(await node1.ok("doctor", ...both, "--clean", "--json"));
      assert.equal(strays.map(({ host, check, subject, cleaned }) => [host, check, subject, cleaned]), [
        ["root@node1", "export", id, null],
      ]);
      assert.match(strays[0]!.message, /node2 knows nothing/);
      assert.match(strays[0]!.remedy!, `dlsm release ${id} on this host, if no other dlsm`);

      rmSync(node1.env.DLSM_STATE_DIR!, { recursive: true });
      const cleaned = read(await node2.ok("doctor", ...both, "--clean", "--json")).strays;
      assert.equal(cleaned.map(({ host, check }) => [host, check]), [["root@node1", "tgtd"]]);
      assert.match(cleaned[0]!.cleaned!, /ended tgtd/);
      await Promise.all([node1, node2].map((host) => host.nothingLeft()));
    });
  },
);

test.run();
