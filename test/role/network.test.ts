/** Routes and portals as a host sees them: on this machine, and on hosts of a network of their own. */
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { findRoute, probePortal } from "../../src/role/network.ts";
import { hasIpv6, programsOfHosts, type TestHost, withNetwork } from "../helpers/hosts/mod.ts";
import { needing } from "../helpers/needs.ts";

const test = suite("network");
const withHosts = needing(test, programsOfHosts, { root: true });
const withIp = needing(test, ["ip"]);

withIp("a route to this host itself leaves with the same address", async () => {
  assert.equal(await findRoute("127.0.0.1"), { sourceAddress: "127.0.0.1", problem: null });
  if (hasIpv6) assert.equal(await findRoute("::1"), { sourceAddress: "::1", problem: null });
});

test("a link-local address is no route between hosts", async () => {
  for (const address of ["fe80::1", "FEBF::1%eth0"]) {
    const { sourceAddress, problem } = await findRoute(address);
    assert.is(sourceAddress, null);
    assert.match(problem!, /link-local/);
  }
});

test("a portal that listens, and one that does not", async () => {
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  assert.equal(await probePortal("127.0.0.1", port, 5000), { problem: null });
  await new Promise((resolve) => server.close(resolve));
  const { problem } = await probePortal("127.0.0.1", port, 5000);
  assert.is(problem, `nothing listens at 127.0.0.1 port ${port}, or a firewall rejects the connection`);
});

async function ask(host: TestHost, ...question: (string | number)[]) {
  const words = [join(import.meta.dirname!, "ask-network.ts"), ...question.map(String)];
  const { stdout, stderr } = await host.run(
    process.execPath,
    "Deno" in globalThis ? ["run", "-A", ...words] : words,
  );
  if (stdout === "") throw new Error(stderr);
  return JSON.parse(stdout) as { sourceAddress?: string | null; problem: string | null };
}

/** Per family: an address that nobody has on the hosts' network, and one that no route leads to. */
const families = [
  { family: 4, unused: "10.77.0.99", elsewhere: "203.0.113.9", all: 32 },
  ...(hasIpv6 ? [{ family: 6, unused: "fd77::99", elsewhere: "2001:db8::9", all: 128 } as const] : []),
] as const;

for (const { family, unused, elsewhere, all } of families) {
  withHosts(`routes and portals between hosts, IPv${family}`, async () => {
    await withNetwork(["node1", "node2"], async ({ node1, node2 }, net) => {
      assert.equal(await ask(node1, "route", node2.address), {
        sourceAddress: node1.address,
        problem: null,
      });
      const away = await ask(node1, "route", elsewhere);
      assert.is(away.sourceAddress, null);
      assert.is(away.problem, `there is no route to ${elsewhere} (Network is unreachable)`);

      assert.equal(await ask(node1, "probe", node2.address, 22, 5000), { problem: null });
      const problems = async (address: string, port: number, timeoutMs: number) =>
        (await ask(node1, "probe", address, port, timeoutMs)).problem ?? "";
      assert.match(await problems(node2.address, 23, 5000), /^nothing listens at \S+ port 23, or a firewall/);
      assert.match(await problems(elsewhere, 22, 5000), /this host has no route to it$/);
      assert.match(await problems(unused, 22, 20_000), /^no route to the host of \S+ port 22: it is down/);
      await net.block(node2, 22);
      assert.match(await problems(node2.address, 22, 300), /^no answer from \S+ port 22: a firewall drops/);
      await node1.space.ip([`route add prohibit ${elsewhere}/${all}`], `-${family}`);
      assert.match((await ask(node1, "route", elsewhere)).problem!, /\(Permission denied\)$/);
      assert.match(
        await problems(elsewhere, 22, 5000),
        /^this host does not let connections to \S+ port 22 out/,
      );
    }, { family });
  });
}

test.run();
