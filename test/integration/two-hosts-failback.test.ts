/** A disk moves to another host, is written there, and goes back; what crosses the link on the way back. */
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { type TestHost, withNetwork } from "../helpers/hosts/mod.ts";
import { needing } from "../helpers/needs.ts";
import { NbdClient } from "./nbd-client.ts";
import { lastJson, programsOfTwoHosts } from "./two-hosts.ts";

const test = suite("two-hosts: failback");
const withHosts = needing(test, programsOfTwoHosts, { root: true });

const sizeMiB = 64;
/** What ssh sends and the iSCSI session says besides data. */
const talkBytes = 3 * MiB;

const runs = [
  { controller: "node1", options: ["--keep-source", "--verify"], cut: false },
  { controller: "node2", options: ["--bwlimit", "256KiB/s"], cut: false },
  { controller: "node3", options: ["--keep-source", "--tunnel"], cut: true },
] as const;

for (const { controller, options, cut } of runs) {
  const what = `${controller}, ${options.join(" ")}${cut ? ", first without the other host" : ""}`;
  withHosts(`it goes back, told from ${what}`, async () => {
    await withNetwork(["node1", "node2", "node3"], async ({ node1, node2, node3 }, net) => {
      const teller = { node1, node2, node3 }[controller]!;
      const [source, destination] = [node1!.path("a.img"), node2!.path("b.img")];
      makeDisk(source, sizeMiB, Array.from({ length: sizeMiB }, (_, at) => at));
      const expected = readFileSync(source);
      const place = (host: TestHost, path: string) => host === teller ? path : `root@${host.name}:${path}`;
      const places = [place(node1!, source), place(node2!, destination)];
      const { id } = lastJson(
        (await teller.ok("migrate", ...places, "--detach", "--json", ...options)).stdout,
      );
      const isKept = options[0] === "--keep-source";
      if (isKept) await node2!.until(id, (status) => status?.phase === "synced", "synced");
      const client = await NbdClient.connect(node2!.nbdSocket(id));
      for (const at of [3, 40]) {
        const data = Buffer.alloc(MiB, at);
        await client.write(at * MiB, data);
        data.copy(expected, at * MiB);
      }
      client.close();
      if (cut) {
        await net.cut(node1!, "down");
        const refused = await teller.dlsm("failback", id, "--force");
        assert.is(refused.exitCode, 1, refused.stderr);
        assert.match(refused.stderr, /cannot go back now|nobody can tell/);
        assert.is((await node2!.status(id))[0]!.phase, "synced");
        await net.restore(node1!);
      }
      const before = node1!.counters();
      const { stdout } = await teller.ok("failback", id, "--force", "--json");
      const last = lastJson(stdout);
      assert.equal([last.phase, last.source.path, last.destination.path], ["done", destination, source]);
      const { demand, readahead, sync } = last.disks[0]!.fetchedBytes;
      assert.is(demand + readahead + sync, 2 * MiB);
      const receivedBytes = node1!.counters().receivedBytes - before.receivedBytes;
      assert.ok(receivedBytes >= 2 * MiB && receivedBytes <= 2 * MiB + talkBytes, `${receivedBytes}`);
      assert.ok(contentOf(source).equals(expected), "the old source");
      if (isKept) assert.ok(contentOf(destination).equals(expected), "the disk that it left");
      await Promise.all(net.hosts.map((host) => host.dlsm("status")));
      await Promise.all(net.hosts.map((host) => host.nothingLeft()));
    });
  });
}

/** Through a descriptor that is open for writing: nothing keeps its owner from that any more. */
function contentOf(path: string): Buffer {
  const file = openSync(path, "r+");
  try {
    const content = Buffer.alloc(sizeMiB * MiB);
    assert.is(readSync(file, content, 0, content.length, 0), content.length);
    return content;
  } finally {
    closeSync(file);
  }
}

test.run();
