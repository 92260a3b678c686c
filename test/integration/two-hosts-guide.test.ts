/** docs/TWO-HOSTS.md, followed to the letter by somebody on a third machine. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { makeDisk } from "../helpers/disk.ts";
import { withNetwork } from "../helpers/hosts/mod.ts";
import { needing } from "../helpers/needs.ts";
import { NbdClient } from "./nbd-client.ts";
import { programsOfTwoHosts } from "./two-hosts.ts";

const test = suite("the guide for two hosts");
const withHosts = needing(test, programsOfTwoHosts, { root: true });
const page = join(import.meta.dirname!, "../../docs/TWO-HOSTS.md");

/** The lines of the page's shell blocks, block by block. */
function blocks(): string[][] {
  const text = readFileSync(page, "utf8");
  return [...text.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block]) => block!.trim().split("\n"));
}

withHosts("every command of the page does what it says", async () => {
  await withNetwork(["node1", "node2", "desk"], async ({ node1, node2, desk }) => {
    // The page's disks are below /srv, which each host has for itself here.
    for (const host of [node1, node2, desk]) {
      const { exitCode, stderr } = await host.run("sh", [
        "-ec",
        'mkdir -p srv; mount --bind "$PWD/srv" /srv',
      ]);
      assert.is(exitCode, 0, stderr);
    }
    const names = ["db", "vm", "a", "b", "c", "d"];
    for (const [at, name] of names.entries()) makeDisk(node1.path(`srv/${name}.img`), 24, [at, 20]);

    let id = "";
    let user: NbdClient | undefined;
    const all = blocks();
    assert.ok(all.length >= 8, "the page has its commands");
    for (const line of all.flat()) {
      const command = line.replaceAll(/\bID\b/g, id);
      const { exitCode, stdout, stderr } = await desk.run("sh", ["-c", command]);
      assert.is(exitCode, 0, `${command}\n${stdout}\n${stderr}`);
      id = /^([a-z0-9]{8}) attached:/m.exec(stdout)?.[1] ?? id;
      // The disk's user goes on at node2, and keeps it from being cut over while the page steers it.
      if (command.startsWith("dlsm activate")) user = await NbdClient.connect(node2.nbdSocket(id));
      if (command.includes("status") && command.includes("--json")) user?.close();
      if (command.includes("--tunnel")) assert.match(stdout, /done: /);
    }
    assert.not.equal(id, "", "an id was printed");

    for (const { id: last } of await node2.status()) {
      await node2.until(last, (status) => status === undefined, "done");
    }
    for (const name of names) {
      const [from, to] = [node1, node2].map((host) => readFileSync(host.path(`srv/${name}.img`)));
      assert.ok(from!.equals(to!), name);
    }
    await desk.ok("status");
    await Promise.all([node1, node2, desk].map((host) => host.nothingLeft()));
  });
});

test.run();
