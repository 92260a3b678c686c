/** The hosts that other tests stand on. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { hasIpv6, programsOfHosts, TestNetwork, withNetwork } from "./hosts/mod.ts";
import { needing } from "./needs.ts";
import { until } from "./processes.ts";

const test = suite("hosts");
const withHosts = needing(test, programsOfHosts, { root: true });
const names = ["node1", "node2", "node3"] as const;

for (const family of hasIpv6 ? [4, 6] as const : [4] as const) {
  withHosts(`each logs in to each by name and by address, IPv${family}`, async () => {
    await withNetwork(names, async (_, net) => {
      await Promise.all(
        net.hosts.flatMap((from) =>
          net.hosts.flatMap((to) =>
            [to.name, to.address].map(async (where) => {
              const command = "hostname; echo $SSH_CONNECTION; command -v dlsm; echo $DLSM_RUN_DIR";
              const { stdout, stderr } = await from.run("ssh", [
                "-o",
                "BatchMode=yes",
                `root@${where}`,
                command,
              ]);
              const [name, connection, dlsm, run] = stdout.trim().split("\n");
              assert.is(name, to.name, stderr);
              assert.equal(connection?.split(" ").toSpliced(1, 1), [from.address, to.address, "22"]);
              assert.equal([dlsm, run], [to.path("bin/dlsm"), to.path("run")]);
            })
          )
        ),
      );
    }, { family });
  });
}

withHosts("dlsm runs there, and sees that host and its processes only", async () => {
  await withNetwork(names, async ({ node1, node2 }) => {
    assert.match((await node1.ok("--version")).stdout, /^(dlsm )?\d+\.\d+\.\d+/);
    writeFileSync(node2.path("secret"), "");
    const { stdout } = await node1.run("ls", [node2.folder]);
    assert.is(stdout, "", "another host's folder");
    assert.is((await node2.run("ls", [node2.folder])).stdout.includes("secret"), true);
    const running = node1.start("sh", ["-c", "echo $$; exec sleep 300"]);
    await until(() => running.stdout !== "", "it runs");
    assert.equal(
      node1.processes().map(({ innerPid, command }) => [innerPid, command]),
      [[Number(running.stdout), "sleep 300"]],
    );
    assert.equal(node2.processes(), []);
    running.signal("SIGTERM");
    assert.is.not((await running.ended).exitCode, 0);
    assert.equal(node1.processes(), []);
  });
});

for (const how of ["down", "drop"] as const) {
  withHosts(`a link that is cut (${how}) lets nothing through until it is restored`, async () => {
    await withNetwork(names, async ({ node1, node2, node3 }, net) => {
      const ssh = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=1"];
      const reaches = async (from: typeof node1, to: typeof node1) =>
        (await from.run("ssh", [...ssh, `root@${to.name}`, "true"])).exitCode === 0;
      const talk = node1.start("ssh", [...ssh, "root@node2", "cat"], { stdin: "pipe" });
      talk.stdin.write("a\n");
      await until(() => talk.stdout === "a\n", "a talk across the link");
      await net.cut(node2, how);
      talk.stdin.write("b\n");
      const reached = [reaches(node1, node2), reaches(node2, node1), reaches(node3, node1)];
      assert.equal(await Promise.all(reached), [false, false, true]);
      assert.is(talk.stdout, "a\n");
      assert.not.ok(/exited|closed|reset/i.test(talk.stderr), "a connection stays");
      await net.restore(node2);
      await until(() => talk.stdout === "a\nb\n", "it goes on");
      assert.equal(await Promise.all([reaches(node1, node2), reaches(node2, node1)]), [true, true]);
      talk.stdin.end();
      assert.is((await talk.ended).exitCode, 0);
    });
  });
}

withHosts("a firewall gives no answer for its ports only", async () => {
  await withNetwork(["node1", "node2"], async ({ node1 }, net) => {
    const [, node2] = net.hosts;
    const login = () => node1.run("ssh", ["-o", "BatchMode=yes", "-o", "ConnectTimeout=1", "node2", "true"]);
    await net.block(node2!, 23, 1000);
    assert.is((await login()).exitCode, 0);
    await net.block(node2!, 22);
    assert.match((await login()).stderr, /timed out/i);
    await net.unblock(node2!, 22);
    assert.is((await login()).exitCode, 0);
  });
});

withHosts("counters count what crosses the link, and nothing else", async () => {
  await withNetwork(["node1", "node2"], async ({ node1, node2 }) => {
    writeFileSync(node1.path("data"), Buffer.alloc(8 << 20, 1));
    const before = [node1.counters(), node2.counters()];
    const copy = await node1.run("sh", ["-c", `ssh root@node2 "cat > ${node2.path("copy")}" < data`]);
    assert.is(copy.exitCode, 0, copy.stderr);
    assert.is(readFileSync(node2.path("copy")).length, 8 << 20);
    const sent = node1.counters().sentBytes - before[0]!.sentBytes;
    const received = node2.counters().receivedBytes - before[1]!.receivedBytes;
    assert.ok(sent > 8 << 20 && sent < (8 << 20) * 1.1, `sent ${sent}`);
    assert.ok(Math.abs(sent - received) < 100_000, `sent ${sent}, received ${received}`);
  });
});

withHosts("what is left is told; closing ends all, and leaves nothing", async () => {
  const net = await TestNetwork.make(["node1", "node2"]);
  const [node1] = net.hosts;
  try {
    await node1!.nothingLeft(0);
    node1!.start("sh", ["-c", "mkdir -p run/x tmp; echo > run/x/file; setsid sleep 300 & wait"]);
    await until(() => existsSync(node1!.path("run/x/file")), "a file");
    await until(() => node1!.processes().length === 2, "two processes");
    await node1!.nothingLeft(0).then(
      () => assert.unreachable("it is told"),
      (error: Error) => assert.match(error.message, /left behind on node1: .*sleep 300.*run\/x\/file/s),
    );
    const pids = node1!.processes().map(({ pid }) => pid);
    await net.close();
    for (const pid of pids) assert.not.ok(existsSync(`/proc/${pid}`), `${pid}`);
    assert.not.ok(existsSync(net.folder));
    assert.not.ok(readFileSync("/proc/self/mountinfo", "utf8").includes(net.folder));
  } finally {
    await net.close();
  }
});

test.run();
