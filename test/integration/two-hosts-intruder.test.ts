/** What a third machine, or another program on the destination's, gets out of an export: nothing. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { decodeTicket } from "../../src/role/mod.ts";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { programsOfHosts, type TestHost, withNetwork } from "../helpers/hosts/mod.ts";
import { needing } from "../helpers/needs.ts";
import type { Attempt, Known } from "./intruder.ts";

const test = suite("two-hosts-intruder");
const withHosts = needing(test, [...programsOfHosts, "tgtd"], { root: true });
const runtimeArguments = "Deno" in globalThis ? ["run", "-A"] : ["--disable-warning=ExperimentalWarning"];

/** Secrets go by stdin: other programs can see what is in argv. */
async function tryAll(host: TestHost, known: Known): Promise<Map<string, Attempt>> {
  const script = join(import.meta.dirname!, "intruder.ts");
  const input = JSON.stringify(known);
  const ran = await host.run(process.execPath, [...runtimeArguments, script], { input });
  assert.is(ran.exitCode, 0, ran.stderr);
  return new Map((JSON.parse(ran.stdout) as Attempt[]).map((attempt) => [attempt.name, attempt]));
}

withHosts(
  "nobody but the destination reads a byte of an export; a third host does not learn of it",
  async () => {
    await withNetwork(["node1", "node2", "node3"], async ({ node1, node2, node3 }) => {
      makeDisk(node1.path("src.img"), 8, [0, 1, 2, 3]);
      const content = readFileSync(node1.path("src.img"));
      const where = ["--allow", node2.address, "--portal", node1.address, "--output", node1.path("ticket")];
      const { stdout } = await node1.ok("export", node1.path("src.img"), ...where, "--json");
      const ticket = decodeTicket(readFileSync(node1.path("ticket"), "utf8"), "the file");
      const { incoming, outgoing } = ticket.export.chap;
      const known: Known = {
        address: ticket.export.address,
        port: ticket.export.port,
        targetName: ticket.export.targetName,
        user: incoming.user,
        secret: incoming.secret,
        targetUser: outgoing.user,
        targetSecret: outgoing.secret,
        recorded: [],
      };

      const first = await tryAll(node2, known);
      const good = first.get("the secrets")!;
      assert.is(good.outcome, "logged in");
      assert.is(good.dataBytes, MiB, "it is really tried");
      // Four requests logged in, then it read.
      const recorded = good.sent.slice(0, 4);
      const fromDestination = await tryAll(node2, { ...known, recorded });
      const fromThird = await tryAll(node3, { ...known, recorded });

      for (const [place, all] of [["destination", fromDestination], ["third", fromThird]] as const) {
        for (const { name, outcome, said, dataBytes } of all.values()) {
          if (place === "destination" && name === "the secrets") continue;
          const what = `${name}, from the ${place} host: ${outcome}, ${JSON.stringify(said)}`;
          assert.is(dataBytes, 0, what);
          assert.not.ok(said.includes(content.toString("latin1", 64, 96)), what);
          const isDiscovery = name.startsWith("discovery");
          if (!isDiscovery) assert.is.not(outcome, "logged in", what);
          // tgtd tells whom it may serve the target's name, without a login; it is no secret.
          if (isDiscovery && place === "destination") continue;
          assert.not.ok(/TargetName|TargetAddress/.test(said) || said.includes(known.targetName), what);
        }
        const replayed = all.get("what was sent by somebody else before")!;
        assert.match(replayed.outcome, place === "third" ? /^status 2\/3$/ : /^status 2\/1$/);
      }
      assert.is(fromThird.get("the secrets")!.outcome, "status 2/3", "its address alone rules it out");
      assert.is(fromDestination.get("another secret")!.outcome, "status 2/1");
      assert.is(fromDestination.get("no authentication")!.outcome, "status 2/1");

      await node1.ok("release", JSON.parse(stdout).id, "--force");
      await Promise.all([node1, node2, node3].map((host) => host.nothingLeft()));
    });
  },
);

test.run();
