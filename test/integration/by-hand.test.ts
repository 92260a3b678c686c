/** export, attach and release by hand, with a ticket between two sets of folders: two hosts on one machine. */
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setInterval } from "node:timers";
import { execa } from "execa";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { selfCommand } from "../../src/lib/self.ts";
import { decodeTicket } from "../../src/role/ticket.ts";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { Dlsm, type Ran } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { killParts } from "../helpers/processes.ts";
import { NbdClient } from "./nbd-client.ts";

const test = suite("by hand");
const withTgt = needing(test, ["tgtd"]);

/** Runs a command that reads `input` from stdin. */
async function runWith(dlsm: Dlsm, input: string, ...args: string[]): Promise<Ran> {
  const { program, args: argv } = selfCommand(args);
  const ran = await execa(program, argv, { env: dlsm.environment, reject: false, input, cwd: dlsm.folder });
  return { exitCode: ran.exitCode, stdout: String(ran.stdout), stderr: String(ran.stderr) };
}

/** Looks through all argvs of the machine again and again, until it is stopped; all that it saw. */
function watchArguments(): () => string[] {
  const seen = new Set<string>();
  const timer = setInterval(() => {
    for (const name of readdirSync("/proc")) {
      if (!/^\d+$/.test(name)) continue;
      try {
        seen.add(readFileSync(`/proc/${name}/cmdline`, "utf8"));
      } catch {
        // Gone meanwhile.
      }
    }
  }, 10).unref();
  return () => {
    clearInterval(timer);
    return [...seen];
  };
}

/** Checks every file that dlsm keeps: private, and no secret in a log. */
function checkFiles(dlsm: Dlsm, secrets: readonly string[]): { withSecrets: number } {
  let withSecrets = 0;
  for (const folder of [dlsm.environment.DLSM_STATE_DIR, dlsm.environment.DLSM_RUN_DIR]) {
    for (const name of ["", ...readdirSync(folder, { recursive: true, encoding: "utf8" })]) {
      const path = join(folder, name);
      const stats = statSync(path, { throwIfNoEntry: false });
      if (stats === undefined) continue;
      if (stats.isDirectory()) assert.is(stats.mode & 0o077, 0, `${path} is open to others`);
      if (!stats.isFile()) continue;
      const content = readFileSync(path, "latin1");
      if (!secrets.some((secret) => content.includes(secret))) continue;
      withSecrets++;
      assert.is(stats.mode & 0o077, 0, `${path} is open to others`);
      assert.not.match(path, /log/, "a secret in a log");
    }
  }
  return { withSecrets };
}

async function twoHosts(body: (from: Dlsm, to: Dlsm, source: string) => Promise<void>): Promise<void> {
  const [from, to] = [new Dlsm(), new Dlsm()];
  try {
    const source = from.path("src.img");
    makeDisk(source, 16, [0, 1, 2, 7]);
    const before = readFileSync(source);
    await body(from, to, source);
    assert.ok(readFileSync(source).equals(before));
    await from.nothingLeft();
    await to.nothingLeft();
  } finally {
    await from.close();
    await to.close();
  }
}

withTgt(
  "with the ticket in a file: attached, handed over, done, released; no secret gets out",
  async () => {
    await twoHosts(async (from, to, source) => {
      const watched = watchArguments();
      const ticketFile = from.path("ticket");
      const exported = await from.ok("export", source, "--allow", "127.0.0.1", "-o", ticketFile, "--json");
      const { id, ticket: printed } = JSON.parse(exported.stdout);
      assert.is(printed, null);
      assert.is(statSync(ticketFile).mode & 0o777, 0o600);
      const ticket = readFileSync(ticketFile, "utf8").trim();
      const { chap } = decodeTicket(ticket, "the test").export;
      const secrets = [ticket, chap.incoming.secret, chap.outgoing.secret];

      const destination = to.path("dst.img");
      const attached = await to.ok("attach", ticketFile, destination, "--detach", "--bwlimit", "64KiB/s");
      const again = await to.run("attach", ticketFile, to.path("other.img"));
      assert.is(again.exitCode, 3, again.stderr);
      const client = await NbdClient.connect(to.socketOf(id));
      assert.ok((await client.read(MiB, MiB)).equals(readFileSync(source).subarray(MiB, 2 * MiB)));
      await to.ok("activate", id);
      await client.write(3 * MiB, Buffer.alloc(4096, 5));
      const early = await from.run("release", id);
      assert.is(early.exitCode, 3, early.stderr);
      assert.match(early.stderr, /still logged in/);
      assert.ok(checkFiles(from, secrets).withSecrets > 0 && checkFiles(to, secrets).withSecrets > 0);

      // Its host was restarted; the ticket stays good.
      await killParts(from, ["tgtd"]);
      await from.ok("resume", id);
      assert.ok((await client.read(7 * MiB, MiB)).equals(readFileSync(source).subarray(7 * MiB, 8 * MiB)));
      client.close();
      await to.ok("limit", id, "off");
      await to.until(id, (status) => status === undefined, "done");
      const released = await from.ok("release", id);
      const argvs = watched();
      assert.ok(argvs.some((argv) => argv.includes("tgtadm")), "they were looked at");
      for (const secret of secrets) {
        assert.equal(argvs.filter((argv) => argv.includes(secret)), [], "no secret in any argv");
        for (const { stdout, stderr } of [exported, attached, again, early, released]) {
          assert.not.ok((stdout + stderr).includes(secret));
        }
      }
      assert.ok(readFileSync(destination).equals(readFileSync(source).fill(5, 3 * MiB, 3 * MiB + 4096)));
      const repeated = await from.run("release", id);
      assert.is(repeated.exitCode, 3);
      assert.match(repeated.stderr, new RegExp(`no export ${id}`));
    });
  },
);

withTgt("with the ticket through stdin; one that is damaged is refused and nothing is changed", async () => {
  await twoHosts(async (from, to, source) => {
    const ticket = (await from.ok("export", source, "--allow", "127.0.0.1")).stdout.trim();
    const { id } = decodeTicket(ticket, "the test");
    const middle = ticket.length >> 1;
    const flipped = ticket[middle] === "A" ? "B" : "A";
    const damaged = [
      "",
      "what is this",
      ticket.slice(0, -8),
      ticket.slice(0, middle) + flipped + ticket.slice(middle + 1),
      ticket.replace("-1:", "-2:"),
      `${ticket}${ticket}`,
      "\xff".repeat(20_000),
    ];
    for (const text of damaged) {
      const { exitCode, stderr } = await runWith(to, text, "attach", "-", to.path("dst.img"));
      assert.is(exitCode, 3, stderr);
      assert.match(stderr, /ticket/);
      assert.not.match(stderr, /did not expect/);
    }
    const missing = await to.run("attach", to.path("no-such-file"), to.path("dst.img"));
    assert.is(missing.exitCode, 3, missing.stderr);
    assert.equal(to.leftovers(), []);

    const attached = await runWith(to, `${ticket}\n`, "attach", "-", to.path("dst.img"), "--detach");
    assert.is(attached.exitCode, 0, attached.stderr);
    await to.ok("abort", id);
    assert.not.ok(readdirSync(to.folder).includes("dst.img"));
    // It is as good as before, until it is released by hand.
    const handedOver = await runWith(to, ticket, "attach", "-", to.path("dst.img"), "--handoff", "now");
    assert.is(handedOver.exitCode, 0, handedOver.stderr);
    assert.ok(readFileSync(to.path("dst.img")).equals(readFileSync(source)));
    await from.ok("release", id);
  });
});

withTgt("a ticket file that is there is not overwritten, and the export is taken back", async () => {
  await twoHosts(async (from, _to, source) => {
    const file = from.path("ticket");
    writeFileSync(file, "somebody's");
    const { exitCode, stderr } = await from.run("export", source, "--allow", "127.0.0.1", "-o", file);
    assert.is(exitCode, 3, stderr);
    assert.is(readFileSync(file, "utf8"), "somebody's");
  });
});

test.run();
