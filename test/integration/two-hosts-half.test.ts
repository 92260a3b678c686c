/** A migration of which one host knows nothing any more: what is said then is true, and what is advised works. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { needing } from "../helpers/needs.ts";
import { Move, programsOfTwoHosts } from "./two-hosts.ts";

const test = suite("two-hosts-half");
const withHosts = needing(test, programsOfTwoHosts, { root: true });

withHosts("abort while the source is away, and again as it says; the source released by hand", async () => {
  await Move.with(["node1", "node2", "node3"], {}, async (move) => {
    const { net, from, to } = move;
    const controller = net.host("node3");
    const { id } = await move.detached(controller, "--handoff", "manual");
    await net.cut(from, "down");
    const half = await to.dlsm("abort", id);
    assert.is(half.exitCode, 1, half.stderr);
    const advice = new RegExp(`give dlsm (abort ${id} --host \\S+) again`).exec(half.stderr);
    assert.ok(advice, half.stderr);
    await net.restore(from);
    await to.ok(...advice[1]!.split(" "));
    await controller.ok("status");
    await move.takenBack();

    const { id: second } = await move.detached(from, "--bwlimit", "64KiB/s");
    const refused = await from.dlsm("release", second);
    assert.is(refused.exitCode, 3, refused.stderr);
    assert.match(refused.stderr, /is being migrated to node2:/);
    await from.ok("release", second, "--force");
    const resumed = await to.dlsm("resume", second);
    assert.is(resumed.exitCode, 1, resumed.stderr);
    assert.match(resumed.stderr, new RegExp(`the source of ${second} was released on node1`));
    assert.match(resumed.stderr, /keep both disks/);
    await to.ok("abort", second, "--force");
    await move.takenBack();
  });
});

test.run();
