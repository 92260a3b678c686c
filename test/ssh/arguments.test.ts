/** What ssh is called with, and what is run on the other host: no destination and no shell can twist it. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { UsageError } from "../../src/lib/errors.ts";
import { checkDestination, sshArguments } from "../../src/ssh/destination.ts";
import {
  deployCommand,
  deployedHash,
  deployedRoleCommand,
  roleCommand,
} from "../../src/ssh/remote-script.ts";
import { findProgram } from "../helpers/needs.ts";
import { tempFolder } from "../helpers/temp.ts";
import { writeProgram } from "./far-side.ts";

const test = suite("ssh arguments");
const hash = "0123456789abcdef".repeat(4);

test("what ssh would take for an option, or a shell for more than a name, is no destination", () => {
  const bad = [
    "",
    "-oProxyCommand=x",
    "root@",
    "root@-oX",
    "a@b@-F",
    "ssh://-oX",
    "ssh://root@-oX",
    "a b",
    "a\nb",
    "a\tb",
    "a\x00",
    "a\x7f",
    "a;b",
    "$(a)",
    "`a`",
  ];
  for (const destination of [...bad, "a'b", 'a"b', "a|b", "a>b", "a\\b", "x".repeat(300)]) {
    const refused = (error: unknown) => error instanceof UsageError && error.exitCode === 2;
    assert.throws(() => checkDestination(destination), refused, JSON.stringify(destination));
    assert.throws(() => sshArguments(destination, { command: "x" }, false), refused);
  }
  for (
    const destination of [
      "node1",
      "root@node1",
      "root@fe80::1%eth0",
      "a_b@10.0.0.1",
      "a-@b-c",
      "ssh://root@node1:2222",
    ]
  ) {
    checkDestination(destination);
  }
});

test("host keys and the user's configuration are left alone, and the host comes after --", () => {
  for (const errand of [{ command: "x" }, { forwardTo: { address: "::1", port: 3260 } }]) {
    for (const isInteractive of [true, false]) {
      const args = sshArguments("root@node1", errand, isInteractive);
      assert.is(args.some((arg) => /^-[Fil]|HostKey|KnownHosts|Identity|Proxy|-J/i.test(arg)), false);
      assert.is(args.indexOf("--") + 1, args.indexOf("root@node1"));
      assert.is(args.includes("BatchMode=yes"), !isInteractive);
    }
  }
  assert.ok(
    sshArguments("h", { forwardTo: { address: "::1", port: 1 } }, false).join(" ").includes("-W [::1]:1 "),
  );
});

test("a remote command holds nothing that a shell could take for its own", () => {
  for (
    const command of [
      roleCommand(),
      roleCommand(hash),
      deployedRoleCommand(hash),
      deployCommand(hash, "Linux x86_64"),
    ]
  ) {
    const inside = /^exec sh -c '([^']*)'$/.exec(command)?.[1];
    assert.ok(inside, command);
    assert.not.match(inside!, /[\n!\\]/);
  }
  for (const bad of ["", "../../x", "0123", hash.toUpperCase(), `${hash}0`]) {
    assert.throws(() => deployedRoleCommand(bad), /no hash/);
    assert.throws(() => deployCommand(bad, "Linux x86_64"), /no hash/);
  }
});

test("a deployed program is known by its path", () => {
  assert.is(deployedHash("/root/.cache/dlsm/bin/dlsm-0123456789abcdef"), "0123456789abcdef");
  assert.is(deployedHash("/usr/local/bin/dlsm"), undefined);
  assert.is(deployedHash("/x/dlsm-0123456789abcdef"), undefined);
});

for (const shell of ["sh", "bash", "busybox", "tcsh", "fish", "zsh"]) {
  if (findProgram(shell) === undefined) continue;
  test(`under ${shell}: dlsm in PATH goes before a deployed one, the like before both, the newest if there is no other`, async () => {
    const home = tempFolder("it's home");
    const bin = join(home, "deployed cache", "dlsm", "bin");
    await execa("mkdir", ["-p", bin, join(home, "path")]);
    const run = async (command: string) => {
      const args = shell === "busybox" ? ["sh", "-c", command] : ["-c", command];
      const env = {
        HOME: home,
        XDG_CACHE_HOME: join(home, "deployed cache"),
        PATH: `${join(home, "path")}:/usr/bin:/bin`,
      };
      const { stdout, exitCode } = await execa(findProgram(shell)!, args, {
        env,
        extendEnv: false,
        reject: false,
      });
      return exitCode === 0 ? stdout : exitCode;
    };
    assert.is(await run(roleCommand()), 127);

    const deployed = (name: string) => writeProgram(join(bin, `dlsm-${name}`), `echo ${name[0]} $1`);
    deployed("a".repeat(16));
    await execa("touch", ["-d", "1 hour ago", join(bin, `dlsm-${"a".repeat(16)}`)]);
    deployed("b".repeat(16));
    writeFileSync(join(bin, "dlsm-cccccccccccccccc"), "not executable");
    assert.is(await run(roleCommand()), "b role");
    assert.is(await run(roleCommand("a".repeat(16))), "a role");
    assert.is(await run(deployedRoleCommand("a".repeat(64))), "a role");

    writeProgram(join(home, "path", "dlsm"), "echo installed $1");
    assert.is(await run(roleCommand()), "installed role");
    assert.is(await run(roleCommand("a".repeat(16))), "a role");
    assert.is(await run(roleCommand("d".repeat(16))), "installed role");
  });
}

test.run();
