/** Who can log in from where: real daemons and initiators on hosts with addresses of their own. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { hasIpv6, programsOfHosts, type TestHost, withNetwork } from "../helpers/hosts/mod.ts";
import { needing } from "../helpers/needs.ts";
import { exportOptions } from "./helpers.ts";

const test = suite("addresses");
const withHosts = needing(test, [...programsOfHosts, "tgtd", "tgtadm"], { root: true });
const tests = join(import.meta.dirname!, "..");

/** Runs a script of the tests on a host; what it needs goes by stdin. */
async function run(host: TestHost, script: string, input: unknown): Promise<string> {
  const words = ["Deno" in globalThis ? ["run", "-A"] : [], join(tests, script)].flat();
  const { exitCode, stdout, stderr } = await host.run(process.execPath, words, {
    input: JSON.stringify(input),
  });
  assert.is(exitCode, 0, stderr);
  return stdout.trim();
}

/** The same address in another spelling. */
const spelled = (address: string, family: 4 | 6) =>
  family === 4 ? address : address.toUpperCase().replace("::", ":0:0:0::");

for (const family of hasIpv6 ? [4, 6] as const : [4] as const) {
  withHosts(`only the allowed address logs in, IPv${family}`, async () => {
    await withNetwork(["node1", "node2", "node3"], async ({ node1, node2, node3 }) => {
      const path = node1.path("disk.img");
      writeFileSync(path, Buffer.alloc(1 << 20, "what is on it"));
      const disk = exportOptions(path, { allow: spelled(node2.address, family) });
      const port = Number(
        await run(node1, "node-iscsi-target/export-disk.ts", {
          folder: node1.path("tgt"),
          portal: { address: spelled(node1.address, family), port: 0 },
          disk,
        }),
      );
      const options = {
        host: node1.address,
        port,
        targetName: disk.targetName,
        initiatorName: "iqn.2026-01.test:me",
        isidQualifier: 1,
        chap: disk.chap.incoming,
      };
      const read = (host: TestHost) => run(host, "iscsi-initiator/read-disk.ts", options);
      assert.is(await read(node2), readFileSync(path).toString("base64", 0, 4096));
      assert.is(await read(node3), "notFound");
      assert.is(await read(node1), "notFound", "the source itself");
    }, { family });
  });
}

test.run();
