/**
 * The way that a record names leads to another host than the one with the source: nothing is done there, and
 * the migration is not done before the right one has released its disk.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { MigrationStatus } from "../../src/report/mod.ts";
import type { Ran } from "../helpers/dlsm.ts";
import { makeDisk } from "../helpers/disk.ts";
import { type TestHost, withNetwork } from "../helpers/hosts/mod.ts";
import { needing } from "../helpers/needs.ts";
import { lastJson, pidsOn, programsOfTwoHosts } from "./two-hosts.ts";

const test = suite("two-hosts-wrong-host");
const withHosts = needing(test, [...programsOfTwoHosts, "env"], { root: true });

/** The exported disk, still there when all of it was fetched: why the driver does not go on. */
async function waits(to: TestHost, from: TestHost, id: string): Promise<MigrationStatus> {
  const isHeldUp = (status: MigrationStatus | undefined) =>
    status === undefined || (status.phase === "synced" && status.lastError !== null);
  const status = await to.until(id, isHeldUp, "it waits for the right host");
  assert.ok(status, "it is not done");
  assert.is(pidsOn(from, "tgtd").length, 1, "still exported");
  return status;
}

function requireSame(source: string, destination: string): void {
  assert.ok(readFileSync(destination).equals(readFileSync(source)), "the disk's content");
}

withHosts("a name that is the source's for who began it, and another host's at the destination", async () => {
  await withNetwork(["node1", "node2", "node3"], async ({ node1, node2, node3 }) => {
    const [source, destination] = [node1.path("s.img"), node2.path("d.img")];
    makeDisk(source, 4, [0, 2]);
    for (const [host, name] of [[node3, "node1"], [node2, "node3"]] as const) {
      const config = `Host src\n HostName ${name}\n HostKeyAlias ${name}\n`;
      writeFileSync(host.path("home/.ssh/config"), config, { mode: 0o600 });
    }
    const places = [`root@src:${source}`, `root@node2:${destination}`];
    const { stdout, stderr } = await node3.ok("migrate", ...places, "--detach", "--json");
    assert.match(stderr, /its destination reaches another host than the source as root@src, node3/);
    const { id } = lastJson(stdout);
    const { lastError } = await waits(node2, node1, id);
    assert.match(lastError!, new RegExp(`root@src is not the host that has the source of ${id} \\(node1\\)`));
    assert.match(lastError!, /but node3/);
    const refused = await node3.dlsm("migrate", ...places.slice(0, 1), places[1] + "2", "--tunnel");
    assert.is(refused.exitCode, 3);
    assert.match(refused.stderr, /root@src is not the source's host node1, but node3/);
    // Whoever knows the right way ends it; on the destination it has to be named.
    await node2.ok("resume", id, "--host", "root@node1");
    requireSame(source, destination);
    await node3.ok("status");
    for (const host of [node1, node2, node3]) await host.nothingLeft();
  });
});

withHosts(
  "nobody at the destination knows a way to the source; two state folders on one machine",
  async () => {
    await withNetwork(["node1", "node2"], async ({ node1, node2 }) => {
      const source = node1.path("s.img");
      makeDisk(source, 4, [0, 2]);
      await node2.startSshd([`ForceCommand=env -u SSH_CONNECTION sh -c "$SSH_ORIGINAL_COMMAND"`]);
      const portal = ["--portal", node1.address];
      const destination = node2.path("d.img");
      const begun = await node1.ok(
        ...["migrate", source, `root@node2:${destination}`, ...portal, "--detach", "--json"],
      );
      assert.match(begun.stderr, /its destination knows no way to the source by ssh/);
      const { id } = lastJson(begun.stdout);
      const { lastError } = await waits(node2, node1, id);
      assert.match(lastError!, new RegExp(`nobody here knows how to reach .* source of ${id} \\(node1\\)`));
      await node1.ok("resume", id);
      requireSame(source, destination);
      for (const host of [node1, node2]) await host.nothingLeft();
      await twoFolders(node1, source);
    });
  },
);

/** Another user's dlsm on the same machine is another host: to it, and from it. */
async function twoFolders(host: TestHost, source: string): Promise<void> {
  const folders = { DLSM_STATE_DIR: host.path("other/state"), DLSM_RUN_DIR: host.path("other/run") };
  mkdirSync(host.path("other"));
  const env = Object.entries(folders).map(([name, value]) => `${name}=${value}`);
  const other = (...args: string[]): Promise<Ran> => host.run("env", [...env, "dlsm", ...args]);
  const at = (name: string) => host.path(name);
  const reach = `root@${host.name}:`;

  const fetched = await other("migrate", reach + source, at("d1.img"), "--json");
  assert.is(fetched.exitCode, 0, fetched.stderr);
  requireSame(source, at("d1.img"));
  await host.nothingLeft();

  const sent = await other("migrate", source, reach + at("d2.img"), "--detach", "--json");
  assert.is(sent.exitCode, 0, sent.stderr);
  assert.match(sent.stderr, /reaches another host than the source as root@/);
  const { id } = lastJson(sent.stdout);
  const { lastError } = await waits(host, host, id);
  assert.match(lastError!, /is not the host that has the source of .* with the state folder /);
  assert.ok(lastError!.includes(host.env.DLSM_STATE_DIR!), lastError!);
  const ended = await other("resume", id);
  assert.is(ended.exitCode, 0, ended.stderr);
  requireSame(source, at("d2.img"));
  await host.nothingLeft();
  const ids = [host.env.DLSM_STATE_DIR!, folders.DLSM_STATE_DIR].map((each) =>
    readFileSync(join(each, "host-id"), "utf8")
  );
  assert.not.equal(ids[0], ids[1], "two hosts");
}

test.run();
